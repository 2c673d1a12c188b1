"""Sets of survivors: two of them, too small ones, padded ones, and both secrets of one client."""

from __future__ import annotations

from hashlib import sha256
from itertools import combinations

import numpy as np
import pytest

from fedpeft.errors import ProtocolError, RoundBurnt
from fedpeft.secagg.pairwise.peers import Entry
from fedpeft.secagg.pairwise.ratchet import ExchangeKey
from fedpeft.secagg.pairwise.rehearsal import Rehearsal
from fedpeft.secagg.pairwise.statements import REQUEST
from fedpeft.secagg.pairwise.wire import reply_length
from fedpeft.secagg.trust import Authority, Identity
from fedpeft.signing.encoding import KEY
from fedpeft.signing.signature import SIGNATURE, sign

from .crook import EVERYBODY, LENGTH, NAMES, Crook, payloads

ALL = tuple(EVERYBODY)
N_MIN = 5


def test_the_floor_is_the_least_at_which_two_sets_share_an_honest_client(run: Rehearsal) -> None:
    terms = run.server.manifest.of("train")
    assert (terms.n_min, terms.n_max) == (N_MIN, len(NAMES))
    corrupt = {0}
    for one, other in combinations(combinations(ALL, N_MIN), 2):
        assert set(one) & set(other) - corrupt


def test_two_survivor_sets_in_one_round(run: Rehearsal) -> None:
    """The difference of the two sums would be one client's vector."""
    crook = Crook(run, corrupt=[7])
    without = tuple(i for i in ALL if i != 3)
    locks = crook.locks(ALL)
    assert len(run.clients[NAMES[0]].unmask(crook.opening(0, ALL, locks))) > SIGNATURE
    for client in without[:-1]:
        with pytest.raises(ProtocolError, match="survivors request: found 'a locked round'"):
            crook.ask("survivors", client, without)


def test_two_survivor_sets_told_to_two_halves(run: Rehearsal) -> None:
    """Neither half gets the signatures that it needs, so nobody opens anything."""
    crook = Crook(run, corrupt=[7])
    other = tuple(i for i in ALL if i != 3)
    half, rest = (0, 1, 2, 3), (4, 5, 6)
    mine = crook.survivors(ALL, asked=half)
    theirs = crook.survivors(other, asked=rest)
    for client, members, have in ((0, ALL, mine), (4, other, theirs)):
        proof = b"".join(have.get(i, bytes(SIGNATURE)) for i in members)
        with pytest.raises(ProtocolError, match="on survivors"):
            crook.ask("lock", client, members, proof)
    # Nor can the second half be moved to the larger set afterwards; the first can move to the smaller one only.
    for client in rest:
        with pytest.raises(ProtocolError, match="found 'others than before', expected fewer than before"):
            crook.ask("survivors", client, ALL)


def test_two_sets_neither_of_which_holds_the_other(run: Rehearsal) -> None:
    crook = Crook(run)
    first, second = tuple(i for i in ALL if i != 3), tuple(i for i in ALL if i != 4)
    crook.survivors(first)
    for client in second:
        if client in first:
            with pytest.raises(ProtocolError, match="others than before"):
                crook.ask("survivors", client, second)


def test_both_secrets_of_one_client(run: Rehearsal) -> None:
    """Client 3 is called gone, so that its pair seeds are given up, then a survivor, so that its self-mask is opened."""
    crook = Crook(run, corrupt=[7])
    without = tuple(i for i in ALL if i != 3)
    for client in without[:-1]:
        reply = crook.ask("survivors", client, without)
        assert len(reply) == reply_length("survivors", seeds=1)
    for client in without[:-1]:
        with pytest.raises(ProtocolError, match="others than before"):
            crook.ask("survivors", client, ALL)
    locks = crook.locks(without)
    # Sealed shares of client 3 among those of the survivors: one too many for the length, or in another's place.
    with pytest.raises(ProtocolError, match="unmask request length"):
        run.clients[NAMES[0]].unmask(crook.opening(0, ALL, locks, count=crook.context.quorum(len(without))))
    wards = [ward for ward in crook.context.topology.wards(0) if ward in without]
    sealed = {ward: crook.sealed(0, [ward]) for ward in wards}
    sealed[wards[2]] = crook.sealed(0, [3])
    chosen = sorted(locks)[: crook.context.quorum(len(without))]
    body = b"".join(locks[i] for i in chosen) + b"".join(sealed[ward] for ward in wards)
    reply = run.clients[NAMES[0]].unmask(crook.request("unmask", chosen, body))
    assert reply[2 * 16 : 3 * 16] == b"\xff" * 16
    assert reply[3 * 16 : 4 * 16] != b"\xff" * 16


@pytest.mark.parametrize("size", range(N_MIN))
def test_a_set_below_the_floor(size: int, run: Rehearsal) -> None:
    crook = Crook(run)
    with pytest.raises(ProtocolError, match=f"survivors request: found {size}, expected at least {N_MIN}"):
        crook.ask("survivors", 0, ALL[:size])
    assert crook.ask("survivors", 0, ALL[:N_MIN])


def test_a_set_without_the_client_that_is_asked(run: Rehearsal) -> None:
    crook = Crook(run)
    with pytest.raises(ProtocolError, match="survivors request: found 'without this client'"):
        crook.ask("survivors", 7, ALL[:6])


def test_a_set_with_members_that_there_are_not(run: Rehearsal) -> None:
    many = Rehearsal.of(NAMES[:6], LENGTH)  # in a bitmap of 8 bits two are to spare
    crook = Crook(many)
    body = crook.request("survivors", range(6))
    with pytest.raises(ProtocolError, match="bitmap"):
        many.clients[NAMES[0]].survivors(_forged(crook, b"\xff"))
    assert many.clients[NAMES[0]].survivors(body)


def _forged(crook: Crook, bitmap: bytes) -> bytes:
    return bitmap + sign(crook.run.server._key, REQUEST, crook.context.digest, "survivors", sha256(bitmap).digest())


def test_sybils_that_pad_a_cohort_beyond_what_was_signed(run: Rehearsal) -> None:
    """A cohort of one victim and many of the server's own would make the sum the victim's."""
    own = Authority.create("rehearsal")
    sybils = [f"sybil{i}" for i in range(7)]
    entries = [
        Entry.of(Identity.enrol(name, own, 2**40), ExchangeKey.generate(), run.server.manifest).to_bytes()
        for name in sybils
    ]
    anna = run.clients[NAMES[0]]
    with pytest.raises(ProtocolError, match="signature of the authority for sybil0 on certificate"):
        anna.meet(sybils, b"".join(entries))
    for cohort in ([NAMES[0], *sybils], [*NAMES, "sybil0"]):
        with pytest.raises(ProtocolError):
            anna.contribute(1, "train", "model", cohort, np.zeros(LENGTH, np.uint16))
    with pytest.raises(ProtocolError, match="cohort: found '9 clients, 9 different', expected 5 to 8 different ones"):
        anna.contribute(1, "train", "model", [*NAMES, "sybil0"], np.zeros(LENGTH, np.uint16))


@pytest.mark.parametrize("cohort", [NAMES[:4], [*NAMES[:4], NAMES[0]], [NAMES[0]] * 8, NAMES[:1], []])
def test_a_cohort_that_is_smaller_than_it_looks(cohort: list[str], run: Rehearsal) -> None:
    with pytest.raises(ProtocolError, match="expected 5 to 8 different ones"):
        run.clients[NAMES[0]].contribute(1, "train", "model", cohort, np.zeros(LENGTH, np.uint16))


def test_certified_sybils_within_the_assumed_share_learn_the_sum_of_the_others_and_no_more(run: Rehearsal) -> None:
    """One corrupt client of eight, as the manifest assumes: with its own vector it is left with a sum of seven."""
    sent = payloads()
    collected = run.contributed(1, sent)
    run.finish(collected)
    total, contributors = collected.sum()
    assert contributors == tuple(NAMES)
    rest = total - sent[NAMES[7]]
    assert np.array_equal(rest, np.sum([sent[name] for name in NAMES[:7]], axis=0, dtype=np.uint64))


def test_a_client_that_some_are_told_is_gone(run: Rehearsal) -> None:
    """Three have given up the seeds that they share with client 3: none of them will help to open a set that it is in."""
    crook = Crook(run, corrupt=[7])
    without = tuple(i for i in ALL if i != 3)
    given = [crook.ask("survivors", i, without)[SIGNATURE : SIGNATURE + KEY] for i in (0, 1, 2)]
    assert len(set(given)) == 3
    crook.survivors(ALL, asked=(3, 4, 5, 6))
    sets = [s for size in range(N_MIN, 9) for s in combinations(ALL, size) if 3 in s and {0, 1, 2} & set(s)]
    assert len(sets) == 63
    for members in sets:
        for client in {0, 1, 2} & set(members):
            with pytest.raises(ProtocolError, match="others than before"):
                crook.ask("survivors", client, members)


def test_the_round_is_burnt_rather_than_opened_for_fewer(run: Rehearsal) -> None:
    sent = payloads()
    collected = run.contributed(1, sent, gone=NAMES[:4])
    with pytest.raises(RoundBurnt, match="found '4 survivors', expected at least 5"):
        collected.requests()
