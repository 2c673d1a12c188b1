"""One client is sent something else than the others, so that the sum tells its part from theirs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp.typing import Mod

from fedpeft.codecs import RingCodec
from fedpeft.errors import ProtocolError
from fedpeft.federation.folder import RunFolder
from fedpeft.federation.plan import LEAST_SCALE
from fedpeft.federation.worker import Worker
from fedpeft.secagg.pairwise import protect
from fedpeft.secagg.pairwise.members import to_bitmap
from fedpeft.secagg.pairwise.opening import open_sum
from fedpeft.secagg.pairwise.ratchet import self_seed
from fedpeft.secagg.pairwise.rehearsal import Rehearsal
from fedpeft.secagg.pairwise.statements import SURVIVORS
from fedpeft.signing.signature import sign
from tests.federation.secure_rounds import by_hand, names, open_rounds, start

from .crook import EVERYBODY, LENGTH, NAMES, Crook, payloads

VICTIM = 3


@pytest.mark.parametrize("alike", [True, False], ids=["one model", "two models"])
def test_of_clients_with_different_models_no_sum_comes_out(
    alike: bool, run: Rehearsal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if all self-masks were known to the server; with one model they are enough, which is the control."""
    secret = 12345
    monkeypatch.setattr(protect, "draw", lambda count: [secret] * count)
    sent, vectors, masks = payloads(), [], []
    for i, name in enumerate(NAMES):
        model = "model" if alike or i != VICTIM else "another model"
        context = run.server.open_round(1, "train", model, NAMES).context
        message = run.clients[name].contribute(1, "train", model, NAMES, sent[name])
        vectors.append(message[: 2 * LENGTH])
        masks.append((self_seed(secret.to_bytes(16, "big"), context.digest), 1))
    total = open_sum(vectors, LENGTH, 16, masks)
    expected = np.sum(list(sent.values()), axis=0, dtype=np.uint64)
    assert np.array_equal(total, expected) == alike


def test_a_client_with_another_model_is_no_contributor_and_signs_for_nobody(run: Rehearsal) -> None:
    sent = payloads()
    collected = run.server.open_round(1, "train", "model", NAMES)
    for i, name in enumerate(NAMES):
        message = run.clients[name].contribute(1, "train", "another" if i == VICTIM else "model", NAMES, sent[name])
        if i == VICTIM:
            with pytest.raises(ProtocolError, match=f"signature of {name} on contribute"):
                collected.add(name, message)
        else:
            collected.add(name, message)
    run.finish(collected)
    total, contributors = collected.sum()
    assert NAMES[VICTIM] not in contributors
    assert np.array_equal(total, np.sum([sent[name] for name in contributors], axis=0, dtype=np.uint64))
    # The victim itself takes no request about the others' round, nor would its peers take its signature.
    with pytest.raises(ProtocolError, match="signature of the server on request"):
        Crook.of(run, collected).ask("survivors", VICTIM, EVERYBODY)


def test_another_cohort_is_another_round(run: Rehearsal) -> None:
    """The victim alone is told that all eight take part; the others that it does not."""
    rest = [name for name in NAMES if name != NAMES[VICTIM]]
    sent = payloads()
    for name in rest:
        run.clients[name].contribute(1, "train", "model", rest, sent[name])
    run.clients[NAMES[VICTIM]].contribute(1, "train", "model", NAMES, sent[NAMES[VICTIM]])
    crook = Crook.of(run, run.server.open_round(1, "train", "model", NAMES))
    assert crook.ask("survivors", VICTIM, EVERYBODY)
    theirs = run.server.open_round(1, "train", "model", rest).context
    mine = [sign(run.identities[n].key, SURVIVORS, theirs.digest, to_bitmap(range(7), 7)) for n in NAMES]
    with pytest.raises(ProtocolError, match="on survivors"):
        crook.ask("lock", VICTIM, EVERYBODY, b"".join(mine))


def test_what_a_range_of_ones_own_would_give_away() -> None:
    """The control: clients who clip to next to nothing add 0 or L, so the sum modulo L is the victim's part."""
    rng = np.random.default_rng(0)
    ring = RingCodec(16, 1e-2, 8)
    deltas = rng.normal(0, 1e-3, (8, 2_000)).astype(np.float32)
    victim = ring.encode(deltas[0], rng).astype(np.uint64)
    narrow = replace(ring, range=ring.range * LEAST_SCALE)
    total = victim + np.sum([narrow.encode(delta, rng) for delta in deltas[1:]], axis=0, dtype=np.uint64)
    read = total % ring.levels
    assert np.mean(read == victim) > 0.99
    alike = np.sum([ring.encode(delta, rng) for delta in deltas], axis=0, dtype=np.uint64)
    assert np.mean(alike % ring.levels == victim) < 0.01


def _retold(fields: dict[str, object]) -> Mod:
    """Return a mod through which the third client hears another plan than the others."""

    def mod(message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
        if message.metadata.message_type == "train" and context.node_config["partition-id"] == 2:
            record = message.content.config_records["plan"]
            message.content.config_records["plan"] = ConfigRecord({**record, **fields})
        return call_next(message, context)

    return mod


@pytest.mark.parametrize("fields", [{"scale": 0.5}, {"scale": LEAST_SCALE}, {"run": "another"}], ids=str)
def test_over_flower_a_client_that_is_told_otherwise_is_not_in_the_sum(
    fields: dict[str, object], worker: Worker, folder: RunFolder, config: dict[str, str]
) -> None:
    row, after = open_rounds(worker, folder, config, _retold(fields)).one(1, start(worker))
    assert row["contributors"] == 4
    assert "signature of user-02 on contribute" in row["reasons"]["user-02"]
    assert np.array_equal(after.change, by_hand(worker, names(worker, 2)))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"model": "0" * 64}, "round plan model"),
        ({"scenario": "0" * 64}, "round plan scenario"),
        ({"schema": "0" * 64}, "round plan schema"),
        ({"base": "0" * 64}, "round plan base"),
        ({"round": 99}, "round: found 99, expected 0 to 20"),
    ],
    ids=str,
)
def test_over_flower_a_wrong_hash_is_refused_before_anything_is_sent(
    fields: dict[str, object], reason: str, worker: Worker, folder: RunFolder, config: dict[str, str]
) -> None:
    row, after = open_rounds(worker, folder, config, _retold(fields)).one(1, start(worker))
    assert row["contributors"] == 4
    assert reason in row["reasons"]["user-02"]
    assert not list((worker.states / "user-02" / "session").glob("*/round"))
    assert np.array_equal(after.change, by_hand(worker, names(worker, 2)))
