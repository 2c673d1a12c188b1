"""Flower's own programs, kept running: what dies is started again, what a dead supervisor left is ended."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from fedpeft.backoff import Backoff
from fedpeft.federation.superlink import end_process, environment_at
from fedpeft.files import write_whole

RUNNING = "programs.json"

_LONGEST_LOG = 16 << 20
_SOUND = 60.0  # seconds after which a program counts as started well


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
    starts: int = 0
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
            end_process(self.process)
            self.process = None

    def _start(self, now: float) -> None:
        if self.log.exists() and self.log.stat().st_size > _LONGEST_LOG:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603  (a fixed program with our own arguments)
                list(self.command),
                env=environment_at(self.home),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.starts += 1
        self._since = now


def remember(home: Path, programs: Sequence[Program]) -> None:
    """Write down which processes run, for whoever comes after."""
    running = {p.name: _identity(p.process.pid) for p in programs if p.process is not None}
    write_whole(home / RUNNING, json.dumps(running))


def running(home: Path) -> dict[str, int]:
    """Return the processes that were written down and still run, by name."""
    try:
        known = json.loads((home / RUNNING).read_text(encoding="utf-8"))
        return {str(name): int(pid) for name, (pid, born) in known.items() if _identity(int(pid)) == [pid, born]}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def end_leftovers(home: Path) -> list[str]:
    """End what a killed supervisor left running; a process that only has the same number is left alone."""
    ended = []
    for name, pid in running(home).items():
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
        for process in family:
            process.terminate()
        _, alive = psutil.wait_procs(family, timeout=10)
        for process in alive:
            process.kill()
        ended.append(name)
    return ended


def _identity(pid: int) -> list[float]:
    """Return a process's number and birth; numbers are used again."""
    try:
        return [pid, psutil.Process(pid).create_time()]
    except psutil.Error:
        return [pid, 0.0]
