"""Rounds under random kills: ``python -m tests.reliability.soak --rounds 50``. Prints rounds, kills, wrong_sums, lost_rounds."""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil

from fedpeft.adapters import Adapter
from fedpeft.federation.messages import published
from fedpeft.federation.server import GLOBAL_ADAPTER
from fedpeft.methods.attached import SHARED

from .operation import Operation, scenario_of
from .page import write_page
from .record import REPOSITORY, RESULTS, SOAK, keep, stamp
from .watching import Watching

CLIENTS, COHORT = 6, 5
PLOT = REPOSITORY / "docs" / "images" / "soak.png"
_PAUSE = (3.0, 9.0)
_WEIGHTS = {"nodes": 0.84, "the ServerApp": 0.06, "the SuperLink": 0.1}
_MIB, _GROWN = 1 << 20, 20.0


@dataclass(frozen=True)
class Sample:
    """Memory of one process at one moment; ``age`` is that of the process."""

    at: float
    name: str
    mib: float
    age: float


class Memory(Watching):
    """Samples the resident memory of everybody, once a second."""

    def __init__(self, op: Operation) -> None:
        super().__init__(1.0)
        self._op, self._start = op, time.monotonic()
        self.samples: list[Sample] = []

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._start

    def look(self) -> None:
        """Take one sample of each."""
        for name, process in self._everybody():
            with suppress(psutil.Error):
                age = time.time() - process.create_time()
                self.samples.append(Sample(self.now, name, process.memory_info().rss / _MIB, age))

    def _everybody(self) -> list[tuple[str, psutil.Process]]:
        found = []
        with suppress(psutil.Error, KeyError):
            found.append(("supervisor", self._op.supervisor()))
            found.append(("SuperLink", self._op.superlink()))
        found += [("ServerApp", process) for process in self._op.serverapps()]
        for index, pid in list(self._op.nursery.pids.items()):
            with suppress(psutil.Error):
                found.append((f"node {index}", psutil.Process(pid)))
        return found

    def table(self) -> dict[str, tuple[float, float, float]]:
        """Return for each process: at the end of the first third, the most, and at the end; young ones left out."""
        table, third = {}, self.now / 3
        for name in dict.fromkeys(sample.name for sample in self.samples):
            mine = [sample for sample in self.samples if sample.name == name and sample.age > _GROWN]
            early = [sample.mib for sample in mine if sample.at <= third] or [sample.mib for sample in mine[:1]]
            if mine:
                table[name] = (
                    round(early[-1], 1),
                    round(max(sample.mib for sample in mine), 1),
                    round(mine[-1].mib, 1),
                )
        return table


def soak(rounds: int, seed: int, seconds: float, folder: Path) -> dict[str, Any]:
    """Run so many rounds, or as many as there is time for, and kill; return the figures."""
    chance, killed = random.Random(seed), Counter[str]()
    kills: list[tuple[float, str]] = []
    op = Operation(folder / "federation", scenario_of("soak", CLIENTS, COHORT, rounds), relayed=False)
    memory, start = Memory(op), time.monotonic()
    with op:
        memory.start()
        op.settle()
        while op.keeper.last < rounds - 1 and memory.now < seconds:
            time.sleep(chance.uniform(*_PAUSE))
            kind = chance.choices([*_WEIGHTS], [*_WEIGHTS.values()])[0]
            if op.keeper.last >= rounds - 1:
                break
            with suppress(TimeoutError, psutil.Error):  # it has just ended, and is not there again yet
                _kill(op, kind, chance)
            killed[kind] += 1
            kills.append((memory.now, kind))
            print(f"{memory.now:6.1f} s  round {op.keeper.last:3}  kill -9 of {kind}", flush=True)
        if op.keeper.last < rounds - 1:
            op.down()
        else:
            op.finish(300)
        memory.stop()
        verdict = op.keeper.verdict()
        wrong = len(verdict.wrong) + (op.keeper.last == rounds and not _saved(op))
    draw(memory.samples, kills)
    return {
        "rounds": verdict.rounds,
        "kills": sum(killed.values()),
        "wrong_sums": wrong,
        "lost_rounds": len(verdict.lost) + op.keeper.last - verdict.rounds,
        "unchecked": len(verdict.unchecked),
        "burnt": verdict.burnt,
        "killed": dict(sorted(killed.items())),
        "seconds": round(time.monotonic() - start, 1),
        "memory_mib": memory.table(),
        "seed": seed,
        **stamp(),
    }


def _saved(op: Operation) -> bool:
    """Say whether the adapter that was saved at the end is the one of the last round."""
    adapter = Adapter.load(op.run.path / GLOBAL_ADAPTER, op.worker.base.fingerprint).vector
    change = op.keeper.seen[op.keeper.last].point.change
    return np.array_equal(adapter, op.worker.attached.initial[SHARED] + published(change))


def _kill(op: Operation, kind: str, chance: random.Random) -> None:
    if kind == "nodes":
        index = chance.randrange(CLIENTS)
        op.nursery.kill(index)
        time.sleep(chance.uniform(0.2, 2.0))
        op.nursery.start(index)
    elif kind == "the ServerApp":
        op.serverapp().kill()
    else:
        op.superlink().kill()


def draw(samples: list[Sample], kills: list[tuple[float, str]]) -> None:
    """Draw memory over time, with the kills of server programs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (server, nodes) = plt.subplots(2, 1, figsize=(8, 5), sharex=True)
    for name in dict.fromkeys(sample.name for sample in samples):
        mine = [sample for sample in samples if sample.name == name]
        axes = nodes if name.startswith("node") else server
        axes.plot([s.at for s in mine], [s.mib for s in mine], ".", markersize=2, label=name)
    for at, kind in kills:
        (nodes if kind == "nodes" else server).axvline(at, color="0.85", linewidth=0.7, zorder=0)
    for axes in (server, nodes):
        axes.set_ylabel("resident MiB")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize="small", ncols=3, markerscale=4)
    nodes.set_xlabel("seconds; grey: kill -9")
    figure.tight_layout()
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT, dpi=100)
    plt.close(figure)


def main() -> int:
    """Run, print and write; 1 when a sum was wrong or a round was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3600.0, help="end after so long, with fewer rounds")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with TemporaryDirectory(prefix="fedpeft-soak-", ignore_cleanup_errors=True) as folder:
        found = soak(options.rounds, options.seed, options.seconds, Path(folder))
    RESULTS.mkdir(exist_ok=True)
    keep(SOAK, [{"part": "soak", **found}], "part", ["soak"])
    write_page()
    print(json.dumps(found))
    return bool(found["wrong_sums"] or found["lost_rounds"] or found["unchecked"])


if __name__ == "__main__":
    sys.exit(main())
