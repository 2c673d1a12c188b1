"""Whole federations on loopback: a SuperLink with TLS and node authentication, a ServerApp, and nodes that are killed."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from fedpeft.adapters import Adapter
from fedpeft.federation.client import worker_at
from fedpeft.federation.deployed.programs import running
from fedpeft.federation.deployed.status import status_of
from fedpeft.federation.deployed.supervisor import Supervisor
from fedpeft.federation.folder import SCENARIO, RunFolder
from fedpeft.federation.server import GLOBAL_ADAPTER
from fedpeft.methods.attached import SHARED
from fedpeft.scenario import Scenario, parse_scenario

from ..secure_rounds import open_rounds
from .federation import Node, enrol, found, until

CLIENTS, PATIENCE = 5, 900


def scenario_of(rounds: int) -> Scenario:
    return parse_scenario(
        {
            "name": "loopback",
            "data": {"clients": CLIENTS, "window": 32, "max_windows": 8},
            "method": {"name": "lora", "rank": 2},
            "training": {"steps": 1, "batch": 2},
            "federation": {"rounds": rounds, "cohort": CLIENTS, "minimum": 3, "panel": 0},
            "personalization": {"people": 0},
        }
    )


class Federation:
    """A server under supervision, and its devices."""

    def __init__(self, folder: Path, scenario: Scenario) -> None:
        self.server, self.said = found(folder / "server"), []
        reference = RunFolder(folder / "reference")
        reference.write(SCENARIO, scenario.model_dump(mode="json"))
        self.file = reference.path / SCENARIO
        self.reference = worker_at(str(self.file), str(reference.path)), reference
        self.nodes = []
        for client in self.reference[0].client_ids:
            enrol(self.server, client, folder / f"{client}-me")
            self.nodes.append(Node(self.server, self.file, folder / client, folder / f"{client}-me"))
        self.supervisor = Supervisor(self.server, scenario, self.server.path / "operator", self.said.append)
        self.thread = threading.Thread(target=self.supervisor.run, daemon=True)

    @property
    def run(self) -> RunFolder:
        return self.supervisor.run_folder

    @property
    def rounds(self) -> list[dict]:
        return self.run.lines("metrics.jsonl")

    def wait_for_round(self, number: int) -> None:
        until(lambda: len(self.rounds) > number, PATIENCE, self.story)

    def program(self, name: str) -> int:
        return running(self.server.flower)[name]

    def story(self) -> str:
        logs = [path.read_text(errors="replace")[-2000:] for path in self.server.flower.glob("*.log")]
        return "\n".join([*self.said, *(node.log[-1000:] for node in self.nodes), *logs])

    def finish(self) -> None:
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), self.story()

    def expected(self) -> np.ndarray:
        """The in-process engine's global adapter."""
        worker, folder = self.reference
        config = {"scenario": str(self.file), "run-folder": str(folder.path)}
        return worker.attached.initial[SHARED] + open_rounds(worker, folder, config).run()

    def found(self) -> np.ndarray:
        return Adapter.load(self.run.path / GLOBAL_ADAPTER, self.reference[0].base.fingerprint).vector


@pytest.fixture
def federation(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Federation]:
    made = Federation(tmp_path, scenario_of(request.param))
    for node in made.nodes:
        node.start()  # forked before there are threads
    made.thread.start()
    try:
        yield made
    finally:
        made.supervisor.stop()
        made.thread.join(60)
        for node in made.nodes:
            node.stop()


@pytest.mark.slow
@pytest.mark.parametrize("federation", [2], indirect=True)
def test_five_devices_and_a_real_server_reach_to_the_bit_what_the_simulation_reaches(federation: Federation) -> None:
    federation.wait_for_round(0)
    clients = status_of(federation.server)["clients"]
    assert (clients["enrolled"], clients["online"]) == (CLIENTS, CLIENTS)
    federation.finish()
    assert [row.get("contributors") for row in federation.rounds] == [None, CLIENTS, CLIENTS], federation.story()
    np.testing.assert_array_equal(federation.found(), federation.expected())
    assert [node.stop() for node in federation.nodes] == [0] * CLIENTS
    (run,) = status_of(federation.server)["runs"]
    assert (run["status"], run["round"], run["burnt"]) == ("finished", 2, 0)
    tokens = [
        secret for secret in (federation.server.secret, federation.server.ca_key) if secret.stat().st_mode & 0o077
    ]
    assert not tokens


@pytest.mark.slow
@pytest.mark.parametrize("federation", [4], indirect=True)
def test_no_finished_round_is_lost_when_a_node_the_superlink_and_the_serverapp_are_killed(
    federation: Federation,
) -> None:
    victim = federation.nodes[2]
    federation.wait_for_round(1)
    victim.kill()
    victim.start()
    federation.wait_for_round(2)
    kept = json.dumps(federation.rounds[:3])
    os.kill(federation.program("superlink"), signal.SIGKILL)
    federation.wait_for_round(3)
    executor = psutil.Process(federation.program("superexec"))
    (serverapp,) = [child for child in executor.children(recursive=True) if "serverapp" in " ".join(child.cmdline())]
    serverapp.kill()
    federation.finish()
    rows = federation.rounds
    assert [row["round"] for row in rows] == [0, 1, 2, 3, 4], federation.story()
    assert json.dumps(rows[:3]) == kept
    assert "superlink ended with -9; it is started again" in federation.said
    assert victim.log.count("knows this node as") == 2
    if all(row["contributors"] == CLIENTS for row in rows[1:]):
        np.testing.assert_array_equal(federation.found(), federation.expected())
    assert any(row["contributors"] for row in rows[3:]), federation.story()
