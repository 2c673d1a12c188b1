"""Who is revoked is shut out: by the server at once, by every peer from the next session on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Context, Message

from fedpeft.errors import ProtocolError, RunError
from fedpeft.federation.client import client_app
from fedpeft.federation.cohort import roll_call
from fedpeft.federation.folder import RunFolder
from fedpeft.federation.grid import InProcessGrid
from fedpeft.federation.handshake import begin_session
from fedpeft.federation.rounds import Rounds
from fedpeft.federation.server import agreed
from fedpeft.federation.sessions import join, meet
from fedpeft.federation.trust import IDENTITY, Trust
from fedpeft.federation.watcher import Silent
from fedpeft.federation.worker import Worker
from fedpeft.scenario import Scenario, parse_scenario
from fedpeft.secagg.pairwise.peers import Entry
from fedpeft.secagg.pairwise.ratchet import ExchangeKey
from fedpeft.secagg.trust import Identity, Invitation, Revocations, SignedManifest
from fedpeft.secagg.trust.invitation import LONGEST

from .conftest import TINY
from .secure_rounds import by_hand, names, start

ADA, BEN = "user-00", "user-01"


@pytest.fixture
def tiny() -> Scenario:
    """Return five clients, so that four of them are still a cohort that may lose one."""
    federation = {**TINY["federation"], "cohort": 5, "panel": 0}
    return parse_scenario({**TINY, "data": {**TINY["data"], "clients": 5}, "federation": federation})


@pytest.fixture
def trust(worker: Worker, folder: RunFolder) -> Trust:
    made = Trust(folder.path)
    made.enrol(worker.client_ids, worker.states)
    return made


def key_of(worker: Worker, client: str) -> bytes:
    return Identity.load(worker.states / client / IDENTITY).certificate.public


def enter(worker: Worker, trust: Trust, client: str, listed: Revocations) -> bytes:
    manifest = trust.keys.session(worker, "run", listed.version)
    return join(worker, client, manifest.to_bytes(), listed)


def test_peers_refuse_who_is_on_the_list_that_a_session_begins_with(worker: Worker, trust: Trust) -> None:
    listed = trust.authority.revoke(1, [key_of(worker, BEN)])
    manifest = trust.keys.session(worker, "run", 1).to_bytes()
    entries = [join(worker, client, manifest, listed) for client in worker.client_ids if client != BEN]
    with pytest.raises(ProtocolError, match="certificate of user-01: found 'revoked'"):
        join(worker, BEN, manifest, listed)
    agreed_on = SignedManifest.from_bytes(manifest).open(trust.operator.public_key().public_bytes_raw())
    identity = Identity.load(worker.states / BEN / IDENTITY)
    theirs = Entry.of(identity, ExchangeKey.generate(), agreed_on).to_bytes()
    with pytest.raises(ProtocolError, match="certificate of user-01: found 'revoked'"):
        meet(worker, ADA, [ADA, BEN], entries[0] + theirs)
    meet(worker, ADA, names(worker, 1), b"".join(entries))


def test_a_list_never_goes_back_even_when_the_operator_signed_for_it(worker: Worker, trust: Trust) -> None:
    ben = key_of(worker, BEN)
    enter(worker, trust, ADA, trust.authority.revoke(2, [ben]))
    for older in (trust.authority.revoke(1, []), Revocations()):
        with pytest.raises(ProtocolError, match="2 or a later one: lists never go back"):
            enter(worker, trust, ADA, older)
    enter(worker, trust, ADA, trust.authority.revoke(2, [ben]))
    enter(worker, trust, ADA, trust.authority.revoke(3, [ben]))


def test_a_list_is_the_authoritys_and_the_one_that_the_manifest_names(worker: Worker, trust: Trust) -> None:
    listed = trust.authority.revoke(1, [key_of(worker, BEN)])
    manifest = trust.keys.session(worker, "run", 1).to_bytes()
    with pytest.raises(ProtocolError, match="revocation list: found 0, expected 1, as the manifest says"):
        join(worker, ADA, manifest)
    with pytest.raises(ProtocolError, match="signature of the authority on revocations"):
        join(worker, ADA, manifest, replace(listed, keys=frozenset()))
    assert join(worker, ADA, manifest, listed)


@pytest.mark.parametrize("data", [b"", b"\0\0\0\0", b"\0\0\0\1x", b"\xff" * 8, b"\0\0\0\1x{}", bytes(LONGEST + 1)])
def test_an_invitation_of_another_form_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        Invitation.from_bytes(data)


def test_an_invitation_comes_back_as_it_was_sent(worker: Worker, trust: Trust) -> None:
    listed = trust.authority.revoke(1, [bytes(32)])
    sent = Invitation.of(trust.keys.session(worker, "run", 1), listed)
    assert Invitation.from_bytes(sent.to_bytes()) == sent


class Revoking:
    """A list that grows while a run goes on."""

    def __init__(self, worker: Worker, trust: Trust, config: dict[str, str], folder: RunFolder) -> None:
        self.worker, self.trust = worker, trust
        self.listed, self.at, self.whom = Revocations(), "", ""
        count = len(worker.client_ids)
        self.grid = InProcessGrid(client_app([self._mod]), count, config)
        self.roll = roll_call(self.grid, count, agreed(worker))
        self.folder = folder

    def rounds(self) -> Rounds:
        keys = replace(self.trust.keys, revoked=lambda: self.listed)
        end, roll = begin_session(self.grid, self.worker, self.roll, keys, "run", Silent())
        return Rounds(self.grid, self.worker, roll, end, self.folder, Silent())

    def revoke(self, client: str) -> None:
        keys = {*self.listed.keys, key_of(self.worker, client)}
        self.listed = self.trust.authority.revoke(self.listed.version + 1, keys)

    def _mod(self, message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
        reply = call_next(message, context)
        if self.whom and message.metadata.message_type == "train" and context.node_config["partition-id"] == 1:
            self.revoke(self.whom)
            self.whom = ""
        return reply


def test_a_client_that_is_revoked_while_it_answers_is_not_in_the_sum_nor_in_any_cohort_after(
    worker: Worker, trust: Trust, config: dict[str, str], folder: RunFolder
) -> None:
    run = Revoking(worker, trust, config, folder)
    rounds = run.rounds()
    run.whom = BEN
    row, after = rounds.one(1, start(worker))
    assert row["contributors"] == 4
    assert "certificate of user-01: found 'revoked'" in row["reasons"][BEN]
    np.testing.assert_array_equal(after.change, by_hand(worker, names(worker, 1)))
    row, _ = rounds.one(2, after)
    assert (row["cohort"], row["contributors"]) == (names(worker, 1), 4)
    again = run.rounds()
    assert "revoked" in again.roll.skipped[BEN]
    run.revoke("user-02")
    with pytest.raises(RunError, match="3 clients whose certificates hold"):
        again.one(3, after)
