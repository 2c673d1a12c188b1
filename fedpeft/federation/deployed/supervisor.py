"""Keeps a server alive: the SuperLink, the program that starts its ServerApps, the nodes it admits, and the run.

The run is submitted whenever it is neither finished nor held by a living ServerApp; a ServerApp that begins goes on at
the last finished round of the run's folder. What has died is known by the lock on that folder, at once, not by a
heartbeat's silence. Why a ServerApp ended is known by what it wrote (``ending``): what time can mend is tried again,
later and later; what it cannot mend ends the server with that one line.
"""

from __future__ import annotations

import errno
import shutil
import socket
import threading
import time
from collections.abc import Callable
from enum import Enum
from functools import partial
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from fedpeft.backoff import Backoff
from fedpeft.errors import FedpeftError, LinkError, RunError
from fedpeft.federation.deployed import commands
from fedpeft.federation.deployed.admission import admit, registry_changed
from fedpeft.federation.deployed.drain import Drain
from fedpeft.federation.deployed.ending import Ending
from fedpeft.federation.deployed.exposition import exposed
from fedpeft.federation.deployed.programs import end_leftovers, kill_all, remember
from fedpeft.federation.deployed.server_folder import ServerFolder
from fedpeft.federation.deployed.serverapp import FINISHED, OPERATOR_FOLDER, RUN_FOLDER, SERVER_FOLDER
from fedpeft.federation.deployed.status import status_of
from fedpeft.federation.deployed.submission import Submission
from fedpeft.federation.flower_control import ControlLine
from fedpeft.federation.flower_link import trusting
from fedpeft.federation.folder import METRICS, RUN, SCENARIO, RunFolder
from fedpeft.federation.locking import hold
from fedpeft.federation.people import require_summable
from fedpeft.scenario import Scenario, load_scenario

LEAST_ROOM = 32 << 20
"""Bytes that must be free before a run is submitted: the database, a checkpoint and logs grow while it runs."""

_PULSE, _ADMISSION, _AGAIN = 0.5, 60.0, 5.0
# From submission to a ServerApp that holds the run's folder: Flower's polls, Python, torch and the base. Twice as long
# after each time that it was not enough: a machine that is too busy to start one must not be made to start others.
_STARTING, _LONGEST = 180.0, 3600.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Outcome(Enum):
    """How a server's work on a run ended."""

    FINISHED = "finished"
    DRAINED = "drained"
    STOPPED = "stopped"
    FAILED = "failed"


class Supervisor:
    """Runs one scenario on one server.

    Parameters
    ----------
    server : ServerFolder
    scenario : Scenario
    operator : Path
        Folder of the operator's key.
    hear : callable
        Told, in one line each, what happens.

    Attributes
    ----------
    failure : str
        Why the run cannot go on before somebody has mended something; empty while it can.

    Raises
    ------
    FedpeftError
        When the folder's run belongs to another scenario, or a key is missing.
    """

    def __init__(
        self, server: ServerFolder, scenario: Scenario, operator: Path, hear: Callable[[str], None] = lambda line: None
    ) -> None:
        if scenario.seeds:
            raise RunError("seeds", scenario.seeds, "one seed", "a deployed run has one: use `seed`")
        require_summable(scenario)
        self._server, self._hear = server, hear
        operator = operator.resolve()
        if scenario.secure:
            server.keys(operator)
        self.run_folder, self.failure = self._describe(scenario), ""
        self._drain = Drain(server.path)
        self._stopping = threading.Event()
        self._programs = (commands.superlink(server), commands.superexec(server))
        config = {SERVER_FOLDER: server.path, RUN_FOLDER: self.run_folder.path, OPERATOR_FOLDER: operator}
        self._submission = Submission(server, {key: str(path) for key, path in config.items()})
        self._trust = trusting(server.ca)
        # When the run was submitted, until a ServerApp holds its folder; None when one does or did.
        self._submitted: float | None = None
        self._held, self._starting = False, _STARTING
        self._not_before, self._backoff = 0.0, Backoff(2.0, 120.0)
        self._rounds = 0
        self._changed, self._admission = -1, 0.0
        self._full = False

    def stop(self) -> None:
        """End; may be called from a signal handler or another thread. The run can be resumed."""
        self._stopping.set()

    def hurry(self) -> None:
        """End now, from a signal handler: what would have been waited for is killed, and nothing is left."""
        self._stopping.set()
        kill_all(self._server.flower)

    def run(self) -> Outcome:
        """Keep everything alive until the run is finished, or cannot go on, or :meth:`stop`, or a drain.

        Raises
        ------
        RunError
            When another process supervises this folder, or something else listens on the server's port.
        """
        server = self._server
        with hold(server.flower, RunError(f"server {server.path}", "in use", "one that no other process runs")):
            left = end_leftovers(server.flower)
            if left:
                self._hear(f"{left} processes were left behind; they were ended")
            self._drain.clear()
            _require_free(server.settings.listen, server.settings.port)
            control = ControlLine(server.address, server.ca)
            try:
                with exposed(server.settings.metrics, partial(status_of, server)):
                    return self._supervise(control)
            finally:
                control.close()
                # Executors first: a ServerApp that is asked to stop tells the SuperLink so.
                for program in reversed(self._programs):
                    program.stop()
                end_leftovers(server.flower)
                self._spared(self._remember)

    def _supervise(self, control: ControlLine) -> Outcome:
        while not self._stopping.is_set():
            ended = self._ended()
            if ended is not None:
                return ended
            self._spared(lambda: self._pulse(control))
            self._stopping.wait(_PULSE)
        return Outcome.STOPPED

    def _ended(self) -> Outcome | None:
        """Say how the work has ended, if it has."""
        if self.run_folder.in_use():
            return None
        name, done = self.run_folder.path.name, self._finished_rounds()
        if self.run_folder.read(RUN, {}).get("status") == FINISHED:
            self._hear(f"run {name} is finished: {self.run_folder.path}")
            return Outcome.FINISHED
        if self._drain.asked:
            self._progress()
            self._hear(f"run {name} is drained after round {done}; `fedpeft server up` goes on with the next")
            return Outcome.DRAINED
        if self.failure:
            return Outcome.FAILED
        return None

    def _pulse(self, control: ControlLine) -> None:
        before = [program.process for program in self._programs]
        for program in self._programs:
            said = program.keep()
            if said:
                self._hear(said)
        if [program.process for program in self._programs] != before:
            self._remember()
        room = self._room()
        if self._healthy():
            self._admit(control)
            self._drive(control, room)

    def _remember(self) -> None:
        remember(self._server.flower, self._programs, {"serverapp": self._submission.starts})

    def _admit(self, control: ControlLine) -> None:
        """Tell the SuperLink of the registry when that has changed, and now and then: certificates expire."""
        changed = registry_changed(self._server.registry)
        if changed == self._changed and time.monotonic() < self._admission:
            return
        try:
            for line in admit(control, self._server.registry):
                self._hear(line)
            self._admission = time.monotonic() + _ADMISSION
        except FedpeftError as error:
            self._hear(str(error))
            self._admission = time.monotonic() + _AGAIN
        self._changed = changed

    def _drive(self, control: ControlLine, room: bool) -> None:
        """Submit the run when nobody works on it and there is room for what it writes."""
        now = time.monotonic()
        if self.run_folder.in_use():
            self._progress()
            self._held, self._submitted, self._starting = True, None, _STARTING
            return
        ending = Ending.read(self.run_folder)
        said = ending is not None and ending.submission == self._submission.number
        if self._held or (said and self._submitted is not None):
            self._lose(ending if said else None)
            return
        starting = self._submitted is not None and now - self._submitted < self._starting
        if starting or now < self._not_before or self._drain.asked or not room:
            return
        if self._submitted is not None:
            self._hear(f"no ServerApp in {self._starting:.0f} s; the run is submitted again")
            self._starting, self._submitted = min(_LONGEST, 2 * self._starting), None
        try:
            self._submission.forsake(control)
            number = self._submission.submit()
        except (RunError, LinkError) as error:
            self._not_before = time.monotonic() + self._backoff.next()
            self._hear(str(error))
            return
        self._submitted = time.monotonic()
        self._hear(f"the run is submitted as {number}: {self.run_folder.path}")
        self._remember()

    def _lose(self, ending: Ending | None) -> None:
        """Go on after a ServerApp, or not."""
        self._progress()
        self._held, self._submitted = False, None
        reason = ending.reason if ending is not None else "it was killed"
        if ending is not None and ending.permanent:
            self.failure = reason
            return
        if reason and not self._drain.asked:
            self._not_before = time.monotonic() + self._backoff.next()
            self._hear(f"the ServerApp is gone ({reason}); the run is resumed")

    def _progress(self) -> None:
        rows = self.run_folder.lines(METRICS)
        if len(rows) > self._rounds:
            self._rounds = len(rows)
            self._backoff.reset()
            last = rows[-1]
            burnt = f", burnt: {last.get('reason')}" if last.get("burnt") else ""
            self._hear(f"round {last['round']} is finished with {last.get('contributors', 0)} clients{burnt}")

    def _finished_rounds(self) -> int:
        rows = self.run_folder.lines(METRICS)
        return int(rows[-1]["round"]) if rows else 0

    def _room(self) -> bool:
        """Say whether the disk has room for another attempt."""
        free = shutil.disk_usage(self._server.path).free
        if free < LEAST_ROOM:
            self._wait_for_room(f"{free >> 20} MB free under {self._server.path}")
            return False
        if self._full:
            self._full = False
            self._hear("disk: there is room again")
        return True

    def _wait_for_room(self, found: str) -> None:
        if not self._full:
            self._full = True
            self._hear(f"disk: {found}, expected {LEAST_ROOM >> 20} MB; nothing new begins before there is room")

    def _spared(self, work: Callable[[], None]) -> None:
        """Do something that a full disk may keep from being done; it is tried again when there is room."""
        try:
            work()
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self._wait_for_room(f"no room to write under {self._server.path}")

    def _healthy(self) -> bool:
        try:
            with urlopen(f"https://{self._server.address}/health", timeout=5, context=self._trust):
                return True
        except HTTPError:
            return True
        except (OSError, LinkError):
            return False

    def _describe(self, scenario: Scenario) -> RunFolder:
        path = self._server.run(scenario.name)
        if (path / SCENARIO).exists():
            found = load_scenario(path / SCENARIO)
            if found.digest != scenario.digest:
                raise RunError(f"run {path}", "another scenario", "the one it began with", "give this one another name")
            return RunFolder(path)
        folder = RunFolder(path)
        folder.write(SCENARIO, scenario.model_dump(mode="json"))
        return folder


def _require_free(host: str, port: int) -> None:
    """Refuse a port that somebody else has: the SuperLink would be started again for ever.

    Raises
    ------
    RunError
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise RunError(
                f"address {host}:{port}", error.strerror, "one that is free", "see `listen` and `port` in server.toml"
            ) from error
