"""A small federation with real processes on loopback, from what :mod:`fedpeft.bench.loopback` has; and waiting for it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fedpeft.adapters import Adapter
from fedpeft.bench.loopback import QUICK, Node, enrol, found, free_port
from fedpeft.federation.client import worker_at
from fedpeft.federation.deployed.programs import running
from fedpeft.federation.deployed.server_folder import ServerFolder
from fedpeft.federation.deployed.supervisor import Supervisor
from fedpeft.federation.folder import SCENARIO, RunFolder
from fedpeft.federation.server import GLOBAL_ADAPTER
from fedpeft.methods.attached import SHARED
from fedpeft.scenario import Scenario, parse_scenario

from ..secure_rounds import open_rounds

__all__ = ["QUICK", "Federation", "Node", "Up", "enrol", "found", "free_port", "scenario_of", "until"]
CLIENTS, PATIENCE = 5, 900


def until(holds: Callable[[], bool], seconds: float, what: Callable[[], str]) -> None:
    """Wait for something, and say what there was instead."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, what()
        time.sleep(0.1)


class Up:
    """`fedpeft server up` in a process of its own.

    Parameters
    ----------
    server : ServerFolder
    scenario : Path
    ahead : float
        Seconds by which its clock and those of all that it starts are wrong.
    """

    def __init__(self, server: ServerFolder, scenario: Path, ahead: float = 0.0) -> None:
        self._log = server.path.parent / f"up-{time.monotonic_ns()}.log"
        environment = dict(os.environ)
        if ahead:
            path = [str(Path(__file__).parent / "wrong_clock"), os.environ.get("PYTHONPATH", "")]
            environment |= {"PYTHONPATH": os.pathsep.join(filter(None, path)), "CLOCK_AHEAD": str(ahead)}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fedpeft", "server", "up", str(server.path), str(scenario)],
                env=environment,
                stdout=log,
                stderr=log,
            )

    @property
    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def kill(self) -> None:
        """Kill -9."""
        self.process.kill()
        self.process.wait()

    def end(self, seconds: float) -> int:
        """Wait until it ends by itself."""
        return self.process.wait(seconds)


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

    def __init__(self, folder: Path, scenario: Scenario, server: ServerFolder | None = None, address: str = "") -> None:
        self.server, self.said = server or found(folder / "server"), []
        reference = RunFolder(folder / "reference")
        reference.write(SCENARIO, scenario.model_dump(mode="json"))
        self.file = reference.path / SCENARIO
        self.reference = worker_at(str(self.file), str(reference.path)), reference
        self.nodes = []
        for client in self.reference[0].client_ids:
            enrol(self.server, client, folder / f"{client}-me")
            self.nodes.append(Node(self.server, self.file, folder / client, folder / f"{client}-me", address))
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
