"""Flower's own programs, kept running: what dies is started again, what a dead supervisor left is ended.

Every process that a supervisor starts, and whatever those start, carries the server's folder in its environment. So
what a killed supervisor left behind is found whatever had been written down by then: there is no moment between the
start of a program and a note of it in which kill -9 would lose one.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from fedpeft.backoff import Backoff
from fedpeft.federation.superlink import end_process, environment_at
from fedpeft.files import write_whole

RUNNING = "programs.json"

_MARK = "FEDPEFT_SERVER"
_LONGEST_LOG = 16 << 20
_SOUND = 60.0  # seconds after which a program counts as started well
_KEPT = 20  # starts of a program that are remembered
_GRACE = 10.0


@dataclass
class Program:
    """One program.

    Parameters
    ----------
    name : str
    command : sequence of str
    home : Path
        Working directory, and where its log goes.
    """

    name: str
    command: Sequence[str]
    home: Path
    process: subprocess.Popen[bytes] | None = None
    starts: list[float] = field(default_factory=list)
    _since: float = 0.0
    _not_before: float = 0.0
    _backoff: Backoff = field(default_factory=lambda: Backoff(1.0, 30.0))

    @property
    def log(self) -> Path:
        """The file with everything that it said."""
        return self.home / f"{self.name}.log"

    def keep(self) -> str:
        """Start it when it does not run and it is time to; return what there is to say."""
        now = time.monotonic()
        if self.process is not None and self.process.poll() is None:
            if now - self._since > _SOUND:
                self._backoff.reset()
            return ""
        if self.process is not None:
            code, self.process = self.process.returncode, None
            self._not_before = now + self._backoff.next()
            return f"{self.name} ended with {code}; it is started again"
        if now < self._not_before:
            return ""
        self._start(now)
        return ""

    def stop(self) -> None:
        """End it and all that it started."""
        if self.process is not None:
            end_process(self.process, _GRACE)
            self.process = None

    def _start(self, now: float) -> None:
        if self.log.exists() and self.log.stat().st_size > _LONGEST_LOG:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603  (a fixed program with our own arguments)
                list(self.command),
                env=marked(self.home),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.starts = [*self.starts, time.time()][-_KEPT:]
        self._since = now


def marked(home: Path) -> dict[str, str]:
    """Return the environment of whatever a supervisor starts."""
    return {**environment_at(home), _MARK: str(home)}


def remember(home: Path, programs: Sequence[Program], further: Mapping[str, Sequence[float]]) -> None:
    """Write down which processes run and when they were started, for whoever asks.

    Parameters
    ----------
    home : Path
    programs : sequence of Program
    further : mapping
        Starts of what others run.
    """
    known: dict[str, Any] = {name: {"starts": list(starts)} for name, starts in further.items()}
    for program in programs:
        pid = program.process.pid if program.process is not None else 0
        known[program.name] = {"pid": pid, "born": _born(pid), "starts": program.starts}
    write_whole(home / RUNNING, json.dumps(known))


def running(home: Path) -> dict[str, int]:
    """Return the processes that were written down and still run, by name."""
    return {name: found["pid"] for name, found in _known(home).items() if found.get("pid") and _lives(found)}


def restarts(home: Path, since: float) -> dict[str, int]:
    """Return how often each program was started since a moment; unix seconds."""
    return {name: sum(start > since for start in found.get("starts", [])) for name, found in _known(home).items()}


def leftovers(home: Path) -> list[psutil.Process]:
    """Return the processes that some supervisor of this folder started, and theirs."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(_MARK) == str(home):
                found.append(process)
        except (psutil.Error, OSError):
            continue  # of somebody else, or gone
    return found


def end_leftovers(home: Path) -> int:
    """End what a killed supervisor left running, and say how many processes that were."""
    family = leftovers(home)
    for process in family:
        _ask(process, psutil.Process.terminate)
    _, alive = psutil.wait_procs(family, timeout=_GRACE)
    for process in alive:
        _ask(process, psutil.Process.kill)
    psutil.wait_procs(alive, timeout=_GRACE)
    return len(family)


def kill_all(home: Path) -> None:
    """End at once all that was started; nothing is left when whoever started it goes."""
    for process in leftovers(home):
        _ask(process, psutil.Process.kill)


def _ask(process: psutil.Process, what: Callable[[psutil.Process], None]) -> None:
    with suppress(psutil.NoSuchProcess):
        what(process)


def _known(home: Path) -> dict[str, Any]:
    try:
        known = json.loads((home / RUNNING).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: found for name, found in known.items() if isinstance(found, dict)} if isinstance(known, dict) else {}


def _lives(found: Mapping[str, Any]) -> bool:
    return bool(found.get("born")) and _born(int(found["pid"])) == found["born"]


def _born(pid: int) -> float:
    """Return when a process began; numbers are used again."""
    try:
        return float(psutil.Process(pid).create_time()) if pid else 0.0
    except psutil.Error:
        return 0.0
