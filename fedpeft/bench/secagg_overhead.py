"""What secure aggregation adds to a round: the default scenario's training on fewer people, plain and secure."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fedpeft.federation.folder import METRICS
from fedpeft.federation.inprocess import simulate
from fedpeft.scenario import parse_scenario


def overhead_share(full: bool) -> float:
    """Return how much longer rounds take with secure aggregation than without, as a share.

    Parameters
    ----------
    full : bool
        With the default scenario's cohort of 16 and five rounds; otherwise cohorts of 8 and two.
    """
    with TemporaryDirectory(prefix="fedpeft-bench-") as folder:
        seconds = {name: _rounds(name, full, Path(folder) / name) for name in ("plain", "pairwise")}
    return seconds["pairwise"] / seconds["plain"] - 1.0


def _rounds(channel: str, full: bool, runs: Path) -> float:
    """Return the seconds of all rounds, validation included; start-up and the session's handshake are not in them."""
    size, rounds = (16, 5) if full else (8, 2)
    # The tables of simulations/keyboard.toml that decide what a client computes in a round.
    tables: dict[str, Any] = {
        "name": channel,
        "data": {"clients": 2 * size, "window": 64},
        "method": {"name": "lora", "rank": 8},
        "training": {"steps": 8, "batch": 8, "learning_rate": 3e-3},
        "federation": {"rounds": rounds, "cohort": size, "panel": size, "weighting": "uniform"},
        "channel": {"name": channel},
        "personalization": {"people": 0},
        "samples": {"prompts": [], "people": 0},
    }
    folder = simulate(parse_scenario(tables), runs)
    rows = [json.loads(line) for line in (folder / METRICS).read_text(encoding="utf-8").splitlines()]
    return float(sum(row["seconds"] for row in rows if row["round"]))
