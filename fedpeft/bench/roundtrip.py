"""What an engine adds to training: one scenario in process and under Flower's Ray simulation, in turn, here."""

from __future__ import annotations

import json
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from fedpeft.bench.result import Result
from fedpeft.federation.folder import METRICS, PEOPLE
from fedpeft.federation.inprocess import simulate
from fedpeft.scenario import Scenario, parse_scenario


def run(full: bool) -> Result:
    """Compare engines on the same apps, clients, seeds and cores.

    Parameters
    ----------
    full : bool
        With 64 clients and cohorts of 16; otherwise 16 clients and cohorts of 8.

    Returns
    -------
    Result
        ``seconds_per_client_round`` is the median over rounds after the second, validation included, divided by the
        cohort; ``speedup_vs_flower_ray`` the ratio of the two; ``whole_run_speedup`` compares from start to end.
        ``equal_numbers`` says whether both runs gave the same metrics to the bit.
    """
    scenario = _scenario(clients=64, cohort=16, rounds=8) if full else _scenario(16, 8, 6)
    with TemporaryDirectory(prefix="fedpeft-bench-") as folder:
        ours, our_numbers = _measure(scenario, "inprocess", Path(folder) / "inprocess")
        theirs, their_numbers = _measure(scenario, "ray", Path(folder) / "ray")
    figures = {
        "seconds_per_client_round": ours["seconds_per_client_round"],
        "speedup_vs_flower_ray": theirs["seconds_per_client_round"] / ours["seconds_per_client_round"],
        "seconds": ours["seconds"],
        "whole_run_speedup": theirs["seconds"] / ours["seconds"],
        "equal_numbers": our_numbers == their_numbers,
        "clients": scenario.data.clients,
        "cohort": scenario.federation.cohort,
    }
    return Result(figures, {"name": "Flower simulation (Ray)", **theirs})


def _measure(scenario: Scenario, engine: str, runs: Path) -> tuple[dict[str, float], object]:
    start = time.perf_counter()
    folder = simulate(scenario, runs, engine=engine)
    seconds = time.perf_counter() - start
    rows = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    # The first two rounds still warm caches up: encoded text, Ray's actors.
    steady = median(row["seconds"] for row in rows[3:]) / scenario.federation.cohort
    numbers = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    people = (folder / PEOPLE).read_text()
    return {"seconds_per_client_round": steady, "seconds": seconds}, [numbers, people]


def _scenario(clients: int, cohort: int, rounds: int) -> Scenario:
    return parse_scenario(
        {
            "name": "roundtrip",
            "data": {"clients": clients, "window": 32, "max_windows": 32},
            "method": {"name": "lora", "rank": 4},
            "training": {"steps": 2, "batch": 4},
            "federation": {"rounds": rounds, "cohort": cohort, "panel": 0},
            "personalization": {"people": 0},
            "samples": {"prompts": [], "people": 0},
        }
    )
