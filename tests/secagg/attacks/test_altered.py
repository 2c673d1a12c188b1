"""Messages altered on the way, or never right: the sum is exact without them, or there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fedpeft.errors import ProtocolError, RoundBurnt
from fedpeft.secagg.pairwise import protect
from fedpeft.secagg.pairwise.packing import pack, packed_size, ring_dtype, unpack
from fedpeft.secagg.pairwise.rehearsal import Rehearsal
from fedpeft.secagg.pairwise.round import PairwiseRound
from fedpeft.secagg.pairwise.seal import SEALED, seal
from fedpeft.secagg.pairwise.shamir import PRIME, WIDTH, draw
from fedpeft.signing.encoding import KEY
from fedpeft.signing.signature import SIGNATURE

from .crook import LENGTH, NAMES, payloads

HOLDERS, THRESHOLD = 7, 4
VICTIM = 3


@pytest.fixture
def sent() -> dict[str, np.ndarray]:
    return payloads()


def exact(collected: PairwiseRound, sent: dict[str, np.ndarray], *gone: str) -> None:
    """The sum is everybody's but theirs."""
    total, contributors = collected.sum()
    assert contributors == tuple(name for name in NAMES if name not in gone)
    assert np.array_equal(total, np.sum([sent[name] for name in contributors], axis=0, dtype=np.uint64))


def spoil(collected: PairwiseRound, count: int, change: Callable[[bytes], bytes]) -> None:
    """Change the shares of one client that are sealed for the first few of its holders."""
    taken = collected._taken[VICTIM]
    sealed = [change(one) if i < count else one for i, one in enumerate(taken.sealed)]
    collected._taken[VICTIM] = replace(taken, sealed=sealed)


ALTERATIONS = {
    "a bit": lambda sealed: bytes([sealed[0] ^ 1]) + sealed[1:],
    "the tag": lambda sealed: sealed[:-1] + bytes([sealed[-1] ^ 0x80]),
    "zeros": lambda sealed: bytes(SEALED),
    "noise": lambda sealed: bytes(reversed(sealed)),
}


@pytest.mark.parametrize("case", ALTERATIONS)
@pytest.mark.parametrize("count", range(1, HOLDERS + 1))
def test_altered_ciphertexts_cost_their_holders_share_and_nothing_else(
    case: str, count: int, run: Rehearsal, sent: dict[str, np.ndarray]
) -> None:
    collected = run.contributed(1, sent)
    assert len(collected._taken[VICTIM].sealed) == HOLDERS
    spoil(collected, count, ALTERATIONS[case])
    run.finish(collected)
    unread = [why for who, why in collected.alerts if who == NAMES[VICTIM] and "could not be unsealed" in why]
    assert len(unread) == count
    if HOLDERS - count >= THRESHOLD:
        exact(collected, sent)
    else:
        with pytest.raises(RoundBurnt, match=f"{HOLDERS - count} shares of {NAMES[VICTIM]}"):
            collected.sum()


def test_shares_delivered_to_the_wrong_holders_are_read_by_nobody(run: Rehearsal, sent: dict[str, np.ndarray]) -> None:
    collected = run.contributed(1, sent)
    taken = collected._taken[VICTIM]
    collected._taken[VICTIM] = replace(taken, sealed=[*taken.sealed[1:], taken.sealed[0]])
    run.finish(collected)
    with pytest.raises(RoundBurnt, match=f"0 shares of {NAMES[VICTIM]}"):
        collected.sum()


@pytest.mark.parametrize("wrong", range(1, HOLDERS + 1))
def test_a_client_that_shares_something_else_than_its_secret(
    wrong: int, run: Rehearsal, sent: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sealed as they should be, but off the polynomial; the hash of the secret tells the right ones."""
    with monkeypatch.context() as patched:
        honest = protect.share

        def share(secret: int, threshold: int, holders: int) -> list[int]:
            shares = honest(secret, threshold, holders)
            return [*draw(wrong), *shares[wrong:]]

        patched.setattr(protect, "share", share)
        message = run.clients[NAMES[VICTIM]].contribute(1, "train", "model", NAMES, sent[NAMES[VICTIM]])
    collected = run.server.open_round(1, "train", "model", NAMES)
    for name in NAMES:
        if name != NAMES[VICTIM]:
            collected.add(name, run.clients[name].contribute(1, "train", "model", NAMES, sent[name]))
    collected.add(NAMES[VICTIM], message)
    run.finish(collected)
    if HOLDERS - wrong >= THRESHOLD:
        exact(collected, sent)
    else:
        with pytest.raises(RoundBurnt, match=f"shares of {NAMES[VICTIM]} that do not fit"):
            collected.sum()


def test_a_client_that_commits_to_another_secret_burns_its_round_by_name(
    run: Rehearsal, sent: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    collected = run.server.open_round(1, "train", "model", NAMES)
    for i, name in enumerate(NAMES):
        with monkeypatch.context() as patched:
            if i == VICTIM:
                patched.setattr(protect, "commitment", lambda *fields: bytes(KEY))
            collected.add(name, run.clients[name].contribute(1, "train", "model", NAMES, sent[name]))
    run.finish(collected)
    with pytest.raises(RoundBurnt, match=f"shares of {NAMES[VICTIM]} that do not fit"):
        collected.sum()


def test_a_share_that_is_no_field_element_is_left_aside(run: Rehearsal, sent: dict[str, np.ndarray]) -> None:
    collected = run.contributed(1, sent)
    context, name = collected.context, NAMES[VICTIM]
    peers = run.clients[name]._joined()
    holder = context.cohort[context.topology.holders(VICTIM)[0]]
    key = peers.key(holder, context.step)
    too_large = seal(key, context.digest, name, holder, PRIME.to_bytes(WIDTH, "big"))
    spoil(collected, 1, lambda sealed: too_large)
    run.finish(collected)
    exact(collected, sent)


def test_not_a_byte_of_a_contribution_can_be_changed(run: Rehearsal, sent: dict[str, np.ndarray]) -> None:
    collected = run.contributed(1, sent, gone=[NAMES[VICTIM]])
    message = run.clients[NAMES[VICTIM]].contribute(1, "train", "model", NAMES, sent[NAMES[VICTIM]])
    for at in range(len(message)):
        damaged = message[:at] + bytes([message[at] ^ 1]) + message[at + 1 :]
        with pytest.raises(ProtocolError, match=f"signature of {NAMES[VICTIM]} on contribute"):
            collected.add(NAMES[VICTIM], damaged)
    collected.add(NAMES[VICTIM], message)
    run.finish(collected)
    exact(collected, sent)


@pytest.mark.parametrize("stage", ["survivors", "pairs", "lock", "unmask"])
def test_altered_replies_are_as_good_as_none(stage: str, run: Rehearsal, sent: dict[str, np.ndarray]) -> None:
    """One client's replies of a stage are altered in every byte in turn, then lost."""
    gone = [NAMES[6]] if stage in ("survivors", "pairs") else []
    collected = run.contributed(1, sent, gone=gone if stage == "survivors" else [])
    tried = 0
    while (asked := collected.requests()) is not None:
        now, requests = asked
        for name, request in requests.items():
            if now == "survivors" and stage == "pairs" and name in gone:
                continue
            reply = run.clients[name].answer(now, request)
            if (now, name) != (stage, NAMES[VICTIM]):
                collected.answer(now, name, reply)
                continue
            for at in range(len(reply)):
                damaged = reply[:at] + bytes([reply[at] ^ 1]) + reply[at + 1 :]
                with pytest.raises(ProtocolError, match=f"signature of {name}"):
                    collected.answer(now, name, damaged)
                tried += 1
    assert tried >= SIGNATURE
    assert sum(who == NAMES[VICTIM] for who, _ in collected.alerts) == tried
    exact(collected, sent, *gone, *([NAMES[VICTIM]] if stage in ("survivors", "pairs") else []))


@pytest.mark.parametrize("bits", [5, 12])
def test_padding_that_is_not_zero_is_refused(bits: int) -> None:
    """A packed vector has one form only, or two servers could be shown different bytes for one signature's worth."""
    packed = pack(np.ones(3, ring_dtype(bits)), bits)
    assert len(packed) == packed_size(3, bits)
    with pytest.raises(ProtocolError, match="packed vector padding"):
        unpack(packed[:-1] + bytes([packed[-1] | 0x80]), 3, bits)


def test_a_payload_beyond_a_clients_levels_is_refused_before_it_is_masked(run: Rehearsal) -> None:
    """What an honest app never sends; after masking nobody could tell."""
    levels = run.server.manifest.of("train").levels
    with pytest.raises(ProtocolError, match=f"payload: found {levels + 1}, expected ≤ {levels}"):
        run.clients[NAMES[0]].contribute(1, "train", "model", NAMES, np.full(LENGTH, levels + 1, np.uint16))
    assert run.logs[NAMES[0]].read("round") is None
