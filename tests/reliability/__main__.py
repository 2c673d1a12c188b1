"""Play the faults and write down what came of them: ``python -m tests.reliability [--stock] [--only a,b]``."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .faults import EXPIRING, FAULTS, Fault
from .operation import TIMEOUT, Operation, scenario_of
from .page import write_page
from .record import OURS, STOCK, keep, stamp
from .stock import INJECTED, StockFederation, moved_clock, outcome

CLIENTS, COHORT, ROUNDS = 6, 5, 2000
_NAMES = [fault.name for fault in FAULTS]
_DAY, _SOON = 86_400, 100.0
_AT_A_TIME = 2


def play(chosen: list[Fault]) -> list[dict[str, Any]]:
    """Do one fault after the other to one federation of ours."""
    ends = any(fault.name == "expired" for fault in chosen)
    with TemporaryDirectory(prefix="fedpeft-faults-", ignore_cleanup_errors=True) as folder:
        days = lambda index: _SOON / _DAY if ends and index == EXPIRING else 1.0  # noqa: E731
        op = Operation(Path(folder) / "federation", scenario_of("faults", CLIENTS, COHORT, ROUNDS), days)
        rows = []
        with op:
            op.settle()
            for fault in chosen:
                first = op.keeper.last + 1
                try:
                    row = _one(op, fault)
                except TimeoutError:
                    print(op.log[-4000:])
                    raise
                found = op.keeper.verdict(first, op.keeper.last)
                row |= {
                    "rounds": found.rounds,
                    "burnt": found.burnt,
                    "fewest": found.fewest,
                    "lost_rounds": len(found.lost),
                    "wrong_sums": len(found.wrong),
                    "unchecked": len(found.unchecked),
                    **stamp(),
                }
                rows.append(row)
                say(row)
                keep(OURS, [row], "fault", _NAMES)
            whole = op.keeper.verdict()
            print(f"all rounds: {whole}")
            if whole.lost or whole.wrong:
                raise AssertionError(f"later, rounds were lost or wrong: {whole}")
    return rows


def _one(op: Operation, fault: Fault) -> dict[str, Any]:
    note = fault.inject(op)
    end = time.monotonic()
    good = lambda: [seen for seen in op.keeper.since(end) if not seen.row.get("burnt")]  # noqa: E731
    op.until(lambda: bool(good()), 5 * TIMEOUT, f"round after {fault.name}")
    recovery = good()[0].at - end
    if not fault.loses:
        op.settle()
    return {"fault": fault.name, "note": note, "recovery_s": round(recovery, 1), "within": recovery <= TIMEOUT}


def play_stock(chosen: list[str]) -> list[dict[str, Any]]:
    """Do each fault to a stock federation of its own; some at a time: mostly one waits."""
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        played = [pool.submit(_one_stock, name) for name in chosen]
        for done in as_completed(played):
            if done.exception() is None:
                keep(STOCK, [done.result()], "fault", _NAMES)
    return [done.result() for done in played]


def _one_stock(name: str) -> dict[str, Any]:
    with TemporaryDirectory(prefix="fedpeft-stock-", ignore_cleanup_errors=True) as folder:
        extra = moved_clock() if name == "clock" else None
        with StockFederation(Path(folder) / "federation", extra) as federation:
            said, seconds = outcome(federation, INJECTED[name])
    row = {"fault": name, "note": said, "recovery_s": seconds and round(seconds, 1), **stamp()}
    say(row)
    return row


def say(row: dict[str, Any]) -> None:
    """Print, at once."""
    print(time.strftime("%H:%M:%S"), row, flush=True)


def main() -> int:
    """Play and write; 1 when something that must hold did not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stock", action="store_true", help="stock Flower instead of fedpeft")
    parser.add_argument("--only", default="", help="names of faults, separated by commas")
    parser.add_argument("--part", choices=("kept", "ended"), help="faults after which everybody is back, or the others")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    wanted = options.only.split(",") if options.only else _NAMES
    if unknown := set(wanted) - set(_NAMES):
        parser.error(f"unknown: {sorted(unknown)}; known: {_NAMES}")
    if options.stock:
        play_stock([name for name in wanted if name in INJECTED])
        write_page()
        return 0
    parts = {"kept": (False,), "ended": (True,), None: (False, True)}[options.part]
    rows = play([fault for fault in FAULTS if fault.name in wanted and fault.loses in parts])
    write_page()
    bad = [row["fault"] for row in rows if row["lost_rounds"] or row["wrong_sums"] or not row["within"]]
    print(f"{len(rows)} faults; not as it must be: {bad or 'none'}")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
