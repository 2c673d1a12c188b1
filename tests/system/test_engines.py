"""One seed, one result: the same apps give the same numbers in every engine, to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedpeft.federation import simulate
from fedpeft.federation.folder import SCENARIO, RunFolder
from fedpeft.federation.inprocess import resume
from fedpeft.federation.ray import conduct_on_ray
from fedpeft.federation.watcher import Silent
from fedpeft.scenario import load_scenario, parse_scenario
from tests.federation.conftest import TINY
from tests.federation.test_resume import everything, numbers


def test_one_process_gives_what_forked_workers_give(smoke_run: Path, tmp_path: Path, repository: Path) -> None:
    scenario = load_scenario(repository / "simulations" / "smoke.toml")
    run = simulate(scenario, tmp_path, engine="serial")
    assert numbers(run) == numbers(smoke_run)
    assert everything(run) == everything(smoke_run)


@pytest.mark.slow
def test_flwr_run_of_this_checkout_on_flowers_own_simulation_gives_the_same_numbers(
    smoke_run: Path, tmp_path: Path, repository: Path
) -> None:
    scenario = load_scenario(repository / "simulations" / "smoke.toml")
    # The run's name is in every message: equal lengths give equal byte counts.
    folder = RunFolder.fresh(tmp_path, scenario.name)
    folder.write(SCENARIO, scenario.model_dump(mode="json"))
    conduct_on_ray(folder, nodes=8, cores=2, watcher=Silent(), app=repository)
    assert numbers(folder.path) == numbers(smoke_run)
    assert everything(folder.path) == everything(smoke_run)


@pytest.mark.slow
def test_the_ray_engine_tells_why_a_run_failed(tmp_path: Path, repository: Path) -> None:
    from fedpeft.errors import RunError

    scenario = load_scenario(repository / "simulations" / "smoke.toml", ["training.learning_rate=1e30"])
    folder = RunFolder(tmp_path / "run")
    folder.write(SCENARIO, scenario.model_dump(mode="json"))
    with pytest.raises(RunError, match="NaN or infinity"):
        conduct_on_ray(folder, nodes=8, cores=2, watcher=Silent())


def test_another_seed_gives_another_result_and_seeds_are_pooled(tmp_path: Path) -> None:
    scenario = parse_scenario({**TINY, "seeds": [0, 1]})
    run = simulate(scenario, tmp_path, workers=2)
    parts = [run / "seeds" / str(seed) for seed in (0, 1)]
    assert numbers(parts[0]) != numbers(parts[1])
    assert resume(run) == run
