"""The keeper is told the truth and lies: it must see which is which."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedpeft.aggregation import advance
from fedpeft.federation.checkpoint import Checkpoint
from fedpeft.federation.client import worker_at
from fedpeft.federation.folder import METRICS, SCENARIO, RunFolder

from .keeper import Keeper
from .operation import scenario_of


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "run")
    made.write(SCENARIO, scenario_of("kept", 4, 4, 2).model_dump(mode="json"))
    return made


def commit(run: RunFolder, keeper: Keeper, point: Checkpoint, row: dict, digest: str) -> None:
    row = {"round": point.round, **row}
    run.write_lines(METRICS, [*(old for old in run.lines(METRICS) if old["round"] < point.round), row])
    point.write(run.path, digest)
    end = time.monotonic() + 10
    while keeper.last < point.round and time.monotonic() < end:
        time.sleep(0.02)


def test_a_sum_of_those_who_are_in_it_is_right_and_every_other_one_is_wrong(run: RunFolder, tmp_path: Path) -> None:
    worker = worker_at(str(run.path / SCENARIO), str(run.path))
    digest, clients = worker.scenario.digest, worker.client_ids
    start = Checkpoint(0, np.zeros(worker.size, np.float32), {})
    payloads = {client: worker.train(client, 1, start.change) for client in clients}
    for client, payload in payloads.items():
        np.save(tmp_path / f"1-{client}.npy", payload)
    three = [payloads[client] for client in clients[:3]]
    total = worker.train_codec(1).decode(np.sum(three, axis=0, dtype=np.uint64), 3)
    step, state = advance(total.mean(), start.state, worker.scenario.aggregation)
    right = Checkpoint(1, start.change + step, state)
    keeper = Keeper(worker, run.path, tmp_path)
    keeper.start()
    commit(run, keeper, start, {}, digest)
    commit(run, keeper, right, {"cohort": clients, "contributors": 3}, digest)
    found = keeper.verdict()
    assert (found.rounds, found.fewest, found.wrong, found.lost, found.unchecked) == (1, 3, [], [], [])
    keeper.seen[1].row["contributors"] = 4
    assert (keeper.verdict().wrong, keeper.verdict().lost) == ([1], [1])
    keeper.seen[1].row["contributors"] = 3
    keeper.seen[1].point.change[5] += np.float32(1e-6)
    assert keeper.verdict().wrong == [1]
    commit(
        run, keeper, replace(right, round=1, change=right.change * 2), {"cohort": clients, "contributors": 3}, digest
    )
    time.sleep(0.3)
    assert keeper.verdict().lost == [1]
    keeper.stop()
