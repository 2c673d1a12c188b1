"""Watches what a server commits, from outside, and checks it: is what was committed still there, is every sum right?

A round counts as committed when its checkpoint has been seen on the disk. Each round's new adapter is computed again from
the contributors' own payloads, in the clear as their devices wrote them before protecting them. Which of the cohort are in
a sum the server does not say, only how many: that it is one set of so many clients whose payloads lead to the published
adapter bit for bit is what must hold.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from fedpeft.aggregation import advance
from fedpeft.federation.checkpoint import FILE, Checkpoint
from fedpeft.federation.folder import METRICS, RunFolder
from fedpeft.federation.worker import Worker

from .watching import Watching

_LOOK = 0.05


@dataclass
class Seen:
    """A round, as it was when it was committed."""

    point: Checkpoint
    row: dict[str, Any]
    at: float


@dataclass
class Verdict:
    """What came of the rounds."""

    rounds: int = 0
    burnt: int = 0
    fewest: int = 0
    wrong: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    unchecked: list[int] = field(default_factory=list)


class Keeper(Watching):
    """Looks at a run's folder, many times a second.

    Parameters
    ----------
    worker : Worker
        Of the scenario, for its codec; it trains nothing here.
    folder : Path
        The server's run.
    clear : Path
        Where devices leave their payloads.
    """

    def __init__(self, worker: Worker, folder: Path, clear: Path) -> None:
        super().__init__(_LOOK)
        self._worker, self._folder, self._clear = worker, folder, clear
        self.seen: dict[int, Seen] = {}
        self._again: list[int] = []
        self._stamp = 0

    @property
    def last(self) -> int:
        """The last committed round; -1 before the start."""
        return max(self.seen, default=-1)

    def since(self, moment: float) -> list[Seen]:
        """Return the rounds that were committed after a moment of the monotonic clock, in order."""
        return [seen for _, seen in sorted(self.seen.items()) if seen.at > moment]

    def verdict(self, first: int = 0, last: int = 1 << 30) -> Verdict:
        """Judge a span of rounds, both ends included."""
        rows = {row["round"]: row for row in RunFolder(self._folder).lines(METRICS)}
        found, counts = Verdict(), list[int]()
        for number, seen in sorted(self.seen.items()):
            if not first <= number <= last or not number:
                continue
            found.rounds += 1
            found.burnt += bool(seen.row.get("burnt"))
            counts.append(int(seen.row.get("contributors", 0)))
            if _same(rows.get(number)) != _same(seen.row) or number in self._again:
                found.lost.append(number)
            before = self.seen.get(number - 1)
            if before is None:
                found.unchecked.append(number)
            elif not self._right(number, before.point, seen):
                found.wrong.append(number)
        found.fewest = min(counts, default=0)
        return found

    def _right(self, number: int, before: Checkpoint, seen: Seen) -> bool:
        row = seen.row
        if row.get("burnt"):
            return np.array_equal(before.change, seen.point.change)
        found = {}
        for client in row["cohort"]:
            path = self._clear / f"{number}-{client}.npy"
            if path.exists():
                found[client] = np.load(path).astype(np.uint64)
        codec = self._worker.train_codec(number, row.get("scale", 1.0))
        mask = self._worker.shared_mask(number)
        for chosen in combinations(sorted(found), row["contributors"]):
            total = np.sum([found[client] for client in chosen], axis=0, dtype=np.uint64)
            mean = np.zeros(self._worker.size, np.float32)
            mean[mask] = codec.decode(total, len(chosen)).mean()
            step, _ = advance(mean, before.state, self._worker.scenario.aggregation)
            if np.array_equal(before.change + step, seen.point.change):
                return True
        return False

    def look(self) -> None:
        """See whether a round has been committed."""
        try:
            now = (self._folder / FILE).stat().st_mtime_ns
            if now == self._stamp:
                return
            point = Checkpoint.read(self._folder, self._worker.scenario.digest, self._worker.size)
            rows = RunFolder(self._folder).lines(METRICS)
        except (OSError, json.JSONDecodeError):
            return
        self._stamp = now
        row = next((row for row in rows if point is not None and row["round"] == point.round), None)
        if point is None or row is None:
            return
        if point.round in self.seen:
            self._again.append(point.round)  # it was committed already
            return
        self.seen[point.round] = Seen(point, row, time.monotonic())


def _same(row: dict[str, Any] | None) -> str:
    return json.dumps(row, sort_keys=True)
