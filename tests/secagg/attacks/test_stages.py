"""A server that leaves stages out, asks twice, or asks out of turn."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Message

from fedpeft.errors import ProtocolError, RunError
from fedpeft.federation.exchange import exchange
from fedpeft.federation.folder import RunFolder
from fedpeft.federation.messages import parcel
from fedpeft.federation.worker import Worker
from fedpeft.secagg.pairwise import STAGES
from fedpeft.secagg.pairwise.rehearsal import Rehearsal
from fedpeft.signing.signature import SIGNATURE
from tests.federation.secure_rounds import open_rounds, start

from .crook import EVERYBODY, NAMES, Crook

ANNA = NAMES[0]


def proof(signatures: dict[int, bytes]) -> bytes:
    return b"".join(signatures[i] for i in sorted(signatures))


@pytest.mark.parametrize("stage", STAGES)
def test_before_a_contribution_nothing_is_answered(stage: str, run: Rehearsal) -> None:
    with pytest.raises(ProtocolError, match="round: found 'none yet'"):
        run.clients[ANNA].answer(stage, bytes(500))


def test_a_stage_that_there_is_not(run: Rehearsal, crook: Crook) -> None:
    for stage in ("contribute", "keys", "", "open", "__init__", "forget"):
        with pytest.raises(ProtocolError, match="stage: found"):
            run.clients[ANNA].answer(stage, crook.request(stage, EVERYBODY))


@pytest.mark.parametrize("stage", ["pairs", "lock"])
def test_survivors_left_out(stage: str, crook: Crook) -> None:
    signatures = crook.survivors(EVERYBODY, asked=range(1, 8))
    with pytest.raises(ProtocolError, match="a round at another stage"):
        crook.ask(stage, 0, EVERYBODY, proof({**signatures, 0: bytes(SIGNATURE)}))


def test_the_lock_left_out(run: Rehearsal, crook: Crook) -> None:
    signatures = crook.survivors(EVERYBODY)
    with pytest.raises(ProtocolError, match="unmask request: found 'a set that is not locked'"):
        run.clients[ANNA].unmask(crook.opening(0, EVERYBODY, signatures))


@pytest.mark.parametrize("missing", EVERYBODY)
def test_a_lock_without_the_signatures_of_all(missing: int, crook: Crook) -> None:
    """The signature of the client that is asked it knows itself; every other one must be there."""
    signatures = crook.survivors(EVERYBODY)
    signatures[missing] = bytes(SIGNATURE)
    if missing == 0:
        assert crook.ask("lock", 0, EVERYBODY, proof(signatures))
    else:
        with pytest.raises(ProtocolError, match=f"signature of {NAMES[missing]} on survivors"):
            crook.ask("lock", 0, EVERYBODY, proof(signatures))


def test_one_clients_signature_in_everybodys_place(crook: Crook) -> None:
    signatures = crook.survivors(EVERYBODY)
    with pytest.raises(ProtocolError, match="on survivors"):
        crook.ask("lock", 0, EVERYBODY, signatures[1] * 8)


@pytest.mark.parametrize("fewer", [1, 2, 4])
def test_an_opening_with_fewer_locks_than_a_quorum(fewer: int, run: Rehearsal, crook: Crook) -> None:
    locks = crook.locks(EVERYBODY)
    quorum = crook.context.quorum(8)
    assert quorum == 5
    with pytest.raises(ProtocolError, match="unmask request length"):
        run.clients[ANNA].unmask(crook.opening(0, EVERYBODY, locks, count=quorum - fewer))
    # With the length made right by a lock twice over, or by one that is nobody's.
    few = sorted(locks)[: quorum - fewer]
    for members, last in ((few, locks[few[-1]]), (sorted(locks)[:quorum], bytes(SIGNATURE))):
        body = b"".join(locks[i] for i in few) + last * fewer + crook.sealed(0, EVERYBODY)
        with pytest.raises(ProtocolError, match=f"found '{quorum - fewer} locks'|on lock"):
            run.clients[ANNA].unmask(crook.request("unmask", members, body))


def test_locks_of_clients_that_are_no_survivors(run: Rehearsal) -> None:
    crook = Crook(run, corrupt=[7])
    left = tuple(range(7))
    locks = {**crook.locks(left), 7: crook._forge(7, "lock", left)}
    chosen = sorted(locks)[-crook.context.quorum(7) :]
    body = b"".join(locks[i] for i in chosen) + crook.sealed(0, left)
    with pytest.raises(ProtocolError, match="found 'locks of others', expected locks of survivors"):
        run.clients[ANNA].unmask(crook.request("unmask", chosen, body))


def test_an_opening_asked_for_twice(run: Rehearsal, crook: Crook) -> None:
    request = crook.opening(0, EVERYBODY, crook.locks(EVERYBODY))
    assert run.clients[ANNA].unmask(request)
    with pytest.raises(ProtocolError, match="unmask request: found 'a second request', expected one in a round"):
        run.clients[ANNA].unmask(request)


def test_survivors_asked_for_without_end(crook: Crook) -> None:
    for _ in range(8):
        crook.ask("survivors", 0, EVERYBODY)
    with pytest.raises(ProtocolError, match="survivors request: found 9, expected fewer requests in a round"):
        crook.ask("survivors", 0, EVERYBODY)


def test_seeds_asked_for_again_are_not_given_twice(run: Rehearsal) -> None:
    crook = Crook(run)
    first = crook.ask("survivors", 0, range(7))
    assert len(first) == 2 * SIGNATURE + 32
    left = tuple(range(6))
    signatures = crook.survivors(left)
    assert len(crook.ask("pairs", 0, left, proof(signatures))) == 32 + SIGNATURE  # of client 6 alone
    assert len(crook.ask("pairs", 0, left, proof(signatures))) == SIGNATURE


def test_a_locked_set_is_final(crook: Crook) -> None:
    signatures = crook.survivors(EVERYBODY)
    crook.ask("lock", 0, EVERYBODY, proof(signatures))
    for stage, body in (("survivors", b""), ("pairs", proof(signatures)), ("lock", proof(signatures))):
        with pytest.raises(ProtocolError, match=r"a locked round|a round at another stage"):
            crook.ask(stage, 0, EVERYBODY, body)


def test_over_flower_a_client_asked_out_of_turn_answers_with_a_reason(
    worker: Worker, folder: RunFolder, config: dict[str, str]
) -> None:
    run = open_rounds(worker, folder, config)
    answers: list[Message] = []

    def ask(stage: str) -> dict[str, str]:
        requests = {client: parcel(bytes(100)) for client in run.roll.clients}
        taken = exchange(
            run.grid,
            f"query.{stage}",
            run.roll.nodes,
            requests,
            lambda c, m: answers.append(m),
            lambda done, all_: None,
        )
        return taken.failures

    for stage in STAGES:
        assert all("round: found 'none yet'" in reason for reason in ask(stage).values())
    _, after = run.one(1, start(worker))
    assert after.change.any()
    for stage in STAGES:
        assert len(ask(stage)) == 5
    assert not answers
    _, again = run.one(2, start(worker))
    assert np.isfinite(again.change).all()


def test_over_flower_a_round_asked_for_twice_is_answered_by_nobody(
    worker: Worker, folder: RunFolder, config: dict[str, str]
) -> None:
    run = open_rounds(worker, folder, config)
    run.one(2, start(worker))
    for round_ in (1, 2):
        with pytest.raises(RunError, match="expected one after train 2, the last contributed to"):
            run.one(round_, start(worker))
