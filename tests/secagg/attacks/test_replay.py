"""What was said once, said again: in the same round, another round, for another purpose, in another run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from flwr.app import Context, Message

from fedpeft.errors import ProtocolError
from fedpeft.federation.folder import RunFolder
from fedpeft.federation.messages import parcel, read_bounded
from fedpeft.federation.worker import Worker
from fedpeft.secagg.pairwise import PairwiseServer
from fedpeft.secagg.pairwise.members import to_bitmap
from fedpeft.secagg.pairwise.opening import open_sum
from fedpeft.secagg.pairwise.ratchet import self_seed
from fedpeft.secagg.pairwise.rehearsal import Rehearsal
from fedpeft.secagg.pairwise.statements import REQUEST
from fedpeft.secagg.trust import SignedManifest
from fedpeft.signing.encoding import KEY
from fedpeft.signing.signature import SIGNATURE, sign
from tests.federation.secure_rounds import by_hand, names, open_rounds, start

from .crook import EVERYBODY, LENGTH, NAMES, Crook

ZEROS = np.zeros(LENGTH, np.uint16)


def test_what_a_second_contribution_would_give_away(run: Rehearsal) -> None:
    """The control: if all forgot the round, one attempt would give up a client's pair masks, the other its own."""
    victim, others = 3, [i for i in EVERYBODY if i != 3]
    first = Crook(run)
    seeds = {i: first.ask("survivors", i, others)[SIGNATURE : SIGNATURE + KEY] for i in others}
    for log in run.logs.values():
        log._entries.pop("round")
    again = Crook(run)
    run.finish(again.round)
    masks = [(self_seed(again.round._secret(victim), again.context.digest), 1)]
    masks += [(seed, 1 if victim < i else -1) for i, seed in seeds.items()]
    vector = again.round._taken[victim].vector
    assert np.array_equal(open_sum([vector], LENGTH, 16, masks), again.sent[NAMES[victim]])


@pytest.mark.parametrize(("round_", "purpose"), [(5, "train"), (4, "train"), (1, "train"), (4, "evaluate")], ids=str)
def test_a_round_is_never_answered_twice_nor_after_a_later_one(round_: int, purpose: str, run: Rehearsal) -> None:
    anna = run.clients[NAMES[0]]
    anna.contribute(5, "train", "model", NAMES, ZEROS)
    for model, cohort in (("model", NAMES), ("another", NAMES), ("model", NAMES[:6])):
        with pytest.raises(ProtocolError, match="expected one after train 5, the last contributed to"):
            anna.contribute(round_, purpose, model, cohort, ZEROS)
    anna.contribute(5, "evaluate", "model", NAMES, ZEROS)
    with pytest.raises(ProtocolError, match="expected one after evaluate 5"):
        anna.contribute(5, "train", "model", NAMES, ZEROS)


def test_a_contribution_counts_once_and_for_nobody_else(run: Rehearsal) -> None:
    collected = run.server.open_round(1, "train", "model", NAMES)
    message = run.clients[NAMES[0]].contribute(1, "train", "model", NAMES, ZEROS)
    with pytest.raises(ProtocolError, match=f"signature of {NAMES[1]} on contribute"):
        collected.add(NAMES[1], message)
    collected.add(NAMES[0], message)
    with pytest.raises(ProtocolError, match="one, before the survivors are fixed"):
        collected.add(NAMES[0], message)
    for other in (
        run.server.open_round(2, "train", "model", NAMES),
        run.server.open_round(1, "evaluate", "model", NAMES),
        run.server.open_round(1, "train", "another", NAMES),
        run.server.open_round(1, "train", "model", NAMES[:6]),
    ):
        with pytest.raises(ProtocolError):
            other.add(NAMES[0], message)


def test_a_request_is_of_one_stage_of_one_round(run: Rehearsal) -> None:
    first, second = Crook(run, 1), Crook(run, 2)
    with pytest.raises(ProtocolError, match="signature of the server on request"):
        run.clients[NAMES[0]].survivors(first.request("survivors", EVERYBODY))
    asked = second.request("survivors", EVERYBODY)
    with pytest.raises(ProtocolError, match="signature of the server on request"):
        run.clients[NAMES[0]].survivors(second.request("lock", EVERYBODY))
    assert run.clients[NAMES[0]].survivors(asked)


def test_signatures_of_another_round_do_not_lock_a_set(run: Rehearsal) -> None:
    first = Crook(run, 1)
    old = first.survivors(EVERYBODY)
    second = Crook(run, 2)
    second.survivors(EVERYBODY)
    with pytest.raises(ProtocolError, match=f"signature of {NAMES[1]} on survivors"):
        second.ask("lock", 0, EVERYBODY, b"".join(old[i] for i in EVERYBODY))


def test_locks_of_another_round_open_nothing(run: Rehearsal) -> None:
    old = Crook(run, 1).locks(EVERYBODY)
    second = Crook(run, 2)
    mine = second.locks(EVERYBODY, asked=[0])
    with pytest.raises(ProtocolError, match="on lock"):
        run.clients[NAMES[0]].unmask(second.opening(0, EVERYBODY, {**old, **mine}))


def test_a_statement_does_not_pass_for_another(run: Rehearsal) -> None:
    """A signature on the survivors is not a promise to sign no others."""
    crook = Crook(run)
    signatures = crook.survivors(EVERYBODY)
    crook.ask("lock", 0, EVERYBODY, b"".join(signatures[i] for i in EVERYBODY))
    with pytest.raises(ProtocolError, match="on lock"):
        run.clients[NAMES[0]].unmask(crook.opening(0, EVERYBODY, signatures))


def test_a_request_about_an_earlier_round_cannot_be_answered_any_more(run: Rehearsal) -> None:
    """By then the keys that would open it are a step further."""
    first = Crook(run, 1)
    locks = first.locks(EVERYBODY)
    Crook(run, 2)
    with pytest.raises(ProtocolError):
        run.clients[NAMES[0]].unmask(first.opening(0, EVERYBODY, locks))
    with pytest.raises(ProtocolError, match="ratchet step"):
        run.clients[NAMES[0]]._joined().key(NAMES[1], first.context.step)


def test_sealed_shares_of_another_round_cannot_be_read(run: Rehearsal) -> None:
    first, second = Crook(run, 1), Crook(run, 2)
    locks = second.locks(EVERYBODY)
    quorum = second.context.quorum(len(NAMES))
    body = b"".join(locks[i] for i in sorted(locks)[:quorum]) + first.sealed(0, EVERYBODY)
    reply = run.clients[NAMES[0]].unmask(second.request("unmask", sorted(locks)[:quorum], body))
    assert reply[:-SIGNATURE] == b"\xff" * (len(reply) - SIGNATURE)


def test_keys_and_requests_of_another_run_fit_nothing(run: Rehearsal) -> None:
    other = SignedManifest.of(replace(run.server.manifest, run="another"), run.operator)
    server = PairwiseServer(
        other.open(run.operator.public_key().public_bytes_raw()), run.server._key, run.authority.public
    )
    with pytest.raises(ProtocolError, match="on keys"):
        server.join(NAMES[0], run.clients[NAMES[0]].keys())
    crook = Crook(run)
    body = to_bitmap(EVERYBODY, len(NAMES))
    context = replace(crook.context, manifest=server.manifest).digest
    request = body + sign(server._key, REQUEST, context, "survivors", sha256(body).digest())
    with pytest.raises(ProtocolError, match="signature of the server on request"):
        run.clients[NAMES[0]].survivors(request)


def test_over_flower_the_manifest_of_an_earlier_session(
    worker: Worker, folder: RunFolder, config: dict[str, str]
) -> None:
    """With it, what was said in the rounds since would be forgotten and could be asked for again."""
    manifests: list[bytes] = []

    def mod(message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
        if message.metadata.message_type == "query.keys":
            manifests.append(read_bounded(message.content, 1 << 20))
            if len(set(manifests)) == 3 and context.node_config["partition-id"] == 2:
                message.content = parcel(manifests[0])
        return call_next(message, context)

    for _ in range(2):
        row, _ = open_rounds(worker, folder, config, mod).one(1, start(worker))
        assert row["contributors"] == 5
    third = open_rounds(worker, folder, config, mod)
    assert third.roll.skipped.keys() == {"user-02"}
    assert "manifest run: found 'run/1', expected a session after run/2" in third.roll.skipped["user-02"]
    row, after = third.one(1, start(worker))
    assert np.array_equal(after.change, by_hand(worker, names(worker, 2)))
