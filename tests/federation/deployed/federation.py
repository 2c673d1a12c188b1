"""A small federation with real processes on loopback: a server's folder, devices with keys of their own, nodes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from fedpeft.adapters import Adapter
from fedpeft.federation.client import worker_at
from fedpeft.federation.deployed.programs import running
from fedpeft.federation.deployed.server_folder import ServerFolder, found_server
from fedpeft.federation.deployed.supervisor import Supervisor
from fedpeft.federation.folder import SCENARIO, RunFolder
from fedpeft.federation.joining import join_federation
from fedpeft.federation.node import Rhythm
from fedpeft.federation.server import GLOBAL_ADAPTER
from fedpeft.methods.attached import SHARED
from fedpeft.scenario import Scenario, parse_scenario
from fedpeft.secagg.trust.enrolling import Pinned, accept, answer, ask, read_request
from fedpeft.secagg.trust.registry import Registry

from ..secure_rounds import open_rounds

CLIENTS, PATIENCE = 5, 900
QUICK = Rhythm(soon=0.1, most=1.0, busy=60.0, idle=300.0, patience=2.0)


def free_port() -> int:
    """Return a port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def found(folder: Path) -> ServerFolder:
    """Make a server on a free port."""
    return found_server(folder, "loopback", folder / "operator", "127.0.0.1", free_port(), ["fed.example.org"])


def enrol(server: ServerFolder, client: str, identity: Path, days: float = 1.0) -> None:
    """Do what `client request`, `server enrol` and `client accept` do."""
    pinned = Pinned.read(server.pinned_file)
    identity.parent.mkdir(parents=True, exist_ok=True)
    request, certificate = identity.with_suffix(".request"), identity.with_suffix(".certificate")
    request.write_text(ask(client, identity, pinned))
    registry = Registry(server.registry)
    certified = registry.certify(read_request(request, pinned.federation), int(time.time() + days * 86_400))
    certificate.write_text(answer(client, certified))
    accept(identity, certificate, pinned, 0.0)


class Node:
    """A device in a process of its own, forked from this one, which has everything loaded."""

    def __init__(
        self,
        server: ServerFolder,
        scenario: Path,
        folder: Path,
        identity: Path,
        address: str = "",
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self._prepare = prepare
        self._arguments = (folder, address or server.address, scenario, identity, server.pinned_file, server.ca)
        self._log = folder.with_suffix(".log")
        self._process: Any = None

    def start(self) -> None:
        """Start it, or start it again."""
        self._process = get_context("fork").Process(target=self._run, daemon=True)
        self._process.start()

    def kill(self) -> None:
        """Kill -9."""
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.join()

    def stop(self) -> int:
        """SIGTERM; return its exit code."""
        self._process.terminate()
        self._process.join(30)
        if self._process.is_alive():
            self.kill()
        return int(self._process.exitcode)

    @property
    def log(self) -> str:
        """Everything it said."""
        return self._log.read_text() if self._log.exists() else ""

    def _run(self) -> None:
        self._prepare()
        with self._log.open("a", buffering=1) as log:
            node = join_federation(*self._arguments, lambda line: print(line, file=log), QUICK)
            signal.signal(signal.SIGTERM, lambda *_: node.stop())
            node.run()


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
