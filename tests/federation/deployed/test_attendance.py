"""A federation that runs for months takes in whoever comes and goes on without whoever goes; nobody waits for either."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedpeft.federation import client as client_module
from fedpeft.federation.client import client_app, worker_at
from fedpeft.federation.deployed.attendance import Attendance
from fedpeft.federation.deployed.server_folder import ServerFolder
from fedpeft.federation.folder import METRICS, RunFolder
from fedpeft.federation.grid import InProcessGrid
from fedpeft.federation.rounds import Rounds
from fedpeft.federation.trust import Trust
from fedpeft.federation.watcher import Silent
from fedpeft.federation.worker import Worker
from fedpeft.scenario import Scenario, parse_scenario
from fedpeft.secagg.trust.enrolling import NODE_KEY
from fedpeft.secagg.trust.registry import Registry
from fedpeft.signing.nodekey import node_public, read_node_key

from ..conftest import TINY
from ..secure_rounds import open_rounds
from .federation import enrol, found


@pytest.fixture
def tiny() -> Scenario:
    """Return a scenario of seven clients, six rounds and sessions of two rounds at least."""
    sizes = ["data.clients=7", "federation.cohort=4", "federation.rounds=6", "federation.renew=2"]
    return parse_scenario(TINY, [*sizes, "federation.panel=0"])


class Crowd(InProcessGrid):
    """Nodes of which only some are online; ``plan`` says who from which round on."""

    def __init__(self, keys: dict[int, bytes], config: dict[str, str]) -> None:
        super().__init__(client_app(), len(keys), config)
        self.keys, self.online, self.greeted = keys, set(keys), []

    def nodes(self) -> dict[int, bytes]:
        return {node: key for node, key in self.keys.items() if node in self.online}

    def push_messages(self, messages):
        sent = list(messages)
        self.greeted += [message.metadata.dst_node_id for message in sent]
        return super().push_messages(sent)


class Place:
    """A server's registry with everybody enrolled, a crowd of nodes, and the rounds that they take part in."""

    def __init__(self, folder: Path, worker: Worker, run: RunFolder, config: dict[str, str]) -> None:
        self.server: ServerFolder = found(folder / "server")
        keys = {}
        for number, client in enumerate(worker.client_ids):
            enrol(self.server, client, folder / client)
            keys[number + 2] = node_public(read_node_key(folder / client / NODE_KEY))
        self.crowd, self.worker, self.run, self.config = Crowd(keys, config), worker, run, config
        self.trust = Trust(run.path)
        self.trust.enrol(worker.client_ids, worker.states)

    def rounds(self, plan: dict[int, set[int]]) -> list[dict]:
        """Run all rounds; from the rounds that the plan names on, other nodes are online."""
        crowd = self.crowd
        crowd.online = {node + 2 for node in plan[0]}
        attendance = Attendance(crowd, self.worker, self.server.registry, lambda: self.trust.keys, self.run, Silent())
        end, roll = attendance.begin(0, attendance.gather(0.0))

        def renewed(round_, end, roll):
            if round_ in plan:
                crowd.online = {node + 2 for node in plan[round_]}
            return attendance.renewed(round_, end, roll)

        self.made = Rounds(crowd, self.worker, roll, end, self.run, Silent(), renewed=renewed)
        self.change = self.made.run()
        return self.run.lines(METRICS)[1:]


@pytest.fixture
def place(tmp_path: Path, worker: Worker, folder: RunFolder, config: dict[str, str]) -> Place:
    return Place(tmp_path, worker, folder, config)


def sessions(place: Place) -> int:
    return int((place.run.path / "trust" / "session").read_text())


def test_with_everybody_there_from_the_beginning_one_session_leads_where_the_simulation_leads(place: Place) -> None:
    rows = place.rounds({0: set(range(7))})
    assert sessions(place) == 1
    assert not any("joined" in row or "left" in row for row in rows)
    assert place.crowd.greeted == []
    simulated = RunFolder(place.run.path.parent / "simulated")
    config = {**place.config, "run-folder": str(simulated.path)}
    expected = open_rounds(worker_at(*config.values()), simulated, config).run()
    np.testing.assert_array_equal(place.change, expected)


def test_who_comes_later_is_in_the_next_session_and_no_round_waits_for_them(place: Place) -> None:
    names = place.worker.client_ids
    rows = place.rounds({0: set(range(5)), 2: set(range(7))})
    # Seen before round 2 and greeted on the side; heard before round 3, which begins the next session.
    assert [row.get("joined") for row in rows] == [None, None, names[5:], None, None, None]
    assert place.crowd.greeted == [7, 8]
    assert (sessions(place), [row["contributors"] for row in rows]) == (2, [4] * 6)
    assert set(names[5:]) & {client for row in rows[2:] for client in row["cohort"]}


def test_a_newcomer_of_another_version_is_noted_and_not_greeted_every_round(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken = client_module.spoken
    old = place.worker.client_ids[6]

    def said() -> dict:
        version = spoken()
        return {**version, "protocol": 0} if client_module.asked == old else version

    def whose(context) -> str:
        client_module.asked = place.worker.client_ids[context.node_config["partition-id"]]
        return client_module.asked

    monkeypatch.setattr(client_module, "asked", "", raising=False)
    monkeypatch.setattr(client_module, "spoken", said)
    monkeypatch.setattr(client_module, "_client", whose)
    rows = place.rounds({0: set(range(6)), 2: set(range(7))})
    assert not any("joined" in row for row in rows)
    assert place.crowd.greeted == [8]
    (noted,) = place.run.read("skipped.json")
    assert noted["client"] == old
    assert "upgrade fedpeft on client user-06" in noted["reason"]


def test_a_session_ends_when_more_have_gone_than_a_round_may_lose(place: Place) -> None:
    names = place.worker.client_ids
    rows = place.rounds({0: set(range(6)), 2: set(range(5)), 4: set(range(4))})
    # One of six may be away: that is what dropout is for. Two are more than a fifth.
    assert [row.get("left") for row in rows] == [None, None, None, names[4:6], None, None]
    assert set(place.made.roll.clients) == set(names[:4])


def test_a_revoked_client_is_not_in_the_next_session(place: Place) -> None:
    place.rounds({0: set(range(7))})
    Registry(place.server.registry).revoke(place.worker.client_ids[3])
    _, roll = place.made.renewed(7, place.made.end, place.made.roll)
    assert place.worker.client_ids[3] not in roll.clients
    assert len(roll.clients) == 6
    # Too few for any session: the old one goes on rather than none.
    place.crowd.online = {2, 3}
    assert place.made.renewed(20, place.made.end, roll)[1] is roll
