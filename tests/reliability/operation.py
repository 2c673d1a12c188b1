"""A federation in operation: `fedpeft server up` as an operator starts it, devices that reach it through a relay."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from fedpeft.bench.loopback import Node, enrol, found
from fedpeft.bench.relay import Relay
from fedpeft.federation.client import worker_at
from fedpeft.federation.deployed.programs import leftovers, running
from fedpeft.federation.deployed.server_folder import SETTINGS, ServerFolder
from fedpeft.federation.folder import SCENARIO, RunFolder, to_toml
from fedpeft.files import write_whole
from fedpeft.scenario import Scenario, parse_scenario

from .disk import mount, unmount
from .keeper import Keeper
from .nursery import Nursery

TIMEOUT = 60.0
"""Seconds that a client has for one request: one round timeout."""


def scenario_of(name: str, clients: int, cohort: int, rounds: int) -> Scenario:
    """Return a scenario that trains little; secure aggregation is on, as by default."""
    return parse_scenario(
        {
            "name": name,
            "data": {"clients": clients, "window": 32, "max_windows": 8},
            "method": {"name": "lora", "rank": 2},
            "training": {"steps": 1, "batch": 2},
            "federation": {"rounds": rounds, "cohort": cohort, "minimum": 3, "panel": 0},
            "personalization": {"people": 0},
            "samples": {"prompts": [], "people": 0},
        }
    )


class Operation:
    """A server with its devices and whoever watches them.

    Parameters
    ----------
    folder : Path
    scenario : Scenario
    days : callable, optional
        For how long a client is certified, by its number.
    relayed : bool
        Whether devices reach the server through the relay.
    """

    def __init__(
        self,
        folder: Path,
        scenario: Scenario,
        days: Callable[[int], float] = lambda index: 1.0,
        relayed: bool = True,
    ) -> None:
        self.scenario = scenario
        self.disk = folder / "disk"
        self._mounted = mount(self.disk)
        made = found(self.disk / "server")
        settings = made.settings.model_copy(update={"deadline": TIMEOUT, "gathering": 20.0})
        write_whole(made.path / SETTINGS, to_toml(settings.model_dump()))
        self.server = ServerFolder(made.path)
        self.reference = RunFolder(folder / "reference")
        self.reference.write(SCENARIO, scenario.model_dump(mode="json"))
        self.file = self.reference.path / SCENARIO
        self.worker = worker_at(str(self.file), str(self.reference.path))
        for client in self.worker.client_ids:
            _ = self.worker.splits(client)  # in the nursery's memory for all of them
        self.relay = Relay(self.server)
        self.nodes = []
        for index, client in enumerate(self.worker.client_ids):
            enrol(self.server, client, folder / f"{client}-me", days(index))
            own = folder / client
            address = self.relay.address if relayed else ""
            self.nodes.append(Node(self.server, self.file, own, folder / f"{client}-me", address))
        self.nursery = Nursery(self.nodes, folder / "test")
        self.run = RunFolder(self.server.run(scenario.name))
        self.keeper = Keeper(self.worker, self.run.path, folder / "test" / "clear")
        self._log = folder / "server.log"
        self._up: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Operation:
        for index in range(len(self.nodes)):
            self.nursery.start(index)
        self.relay.start()
        self.keeper.start()
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()
        self.nursery.stop()
        self.keeper.stop()
        self.relay.stop()
        if self._mounted:
            unmount(self.disk)

    @property
    def can_fill(self) -> bool:
        """Whether the server has a disk of its own, which may be filled."""
        return self._mounted

    @property
    def log(self) -> str:
        """What `fedpeft server up` said."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def up(self) -> None:
        """Start the server, or start it again."""
        command = [sys.executable, "-m", "fedpeft", "server", "up", str(self.server.path), str(self.file)]
        with self._log.open("ab") as log:
            self._up = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def down(self) -> int | None:
        """Stop the server as an operator does; return its exit code."""
        if self._up is None:
            return None
        self._up.terminate()
        try:
            return self._up.wait(60)
        except subprocess.TimeoutExpired:
            self._up.kill()
            return self._up.wait()

    def serving(self) -> bool:
        """Say whether the server's process lives."""
        return self._up is not None and self._up.poll() is None

    def finish(self, patience: float) -> int:
        """Wait until the run is finished; return the exit code."""
        assert self._up is not None
        return self._up.wait(patience)

    def supervisor(self) -> psutil.Process:
        """Return `fedpeft server up`."""
        assert self._up is not None
        return psutil.Process(self._up.pid)

    def superlink(self) -> psutil.Process:
        """Return the SuperLink, once it runs."""
        self.until(lambda: "superlink" in running(self.server.flower), 60, "a SuperLink")
        return psutil.Process(running(self.server.flower)["superlink"])

    def serverapps(self) -> list[psutil.Process]:
        """Return the ServerApps that run, also one whose executor has been started again since."""
        found = []
        for process in leftovers(self.server.flower):
            with suppress(psutil.Error):
                if "serverapp" in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def serverapp(self) -> psutil.Process:
        """Return the ServerApp, once there is one that holds the run."""
        found: list[psutil.Process] = []

        def there() -> bool:
            found[:] = self.serverapps()
            return bool(found) and self.run.in_use()

        self.until(there, 240, "a ServerApp")
        return found[0]

    def keep_superlink_down(self, seconds: float) -> None:
        """Kill -9 the SuperLink; its supervisor, which would start it again at once, is frozen meanwhile."""
        supervisor, superlink = self.supervisor(), self.superlink()
        supervisor.send_signal(signal.SIGSTOP)
        try:
            superlink.kill()
            time.sleep(seconds)
        finally:
            supervisor.send_signal(signal.SIGCONT)

    def settle(self, patience: float = 300.0) -> None:
        """Wait for a round in which nobody was missing."""
        since, cohort = time.monotonic(), self.scenario.federation.cohort
        self.until(
            lambda: any(seen.row.get("contributors") == cohort for seen in self.keeper.since(since)),
            patience,
            "a round with everybody",
        )

    def until(self, holds: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait for something."""
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                raise TimeoutError(f"no {what} in {seconds:.0f} s\n{self.log[-2000:]}")
            time.sleep(0.05)
