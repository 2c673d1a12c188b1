"""The rounds of a small secure federation, opened by hand, and what they must lead to."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from flwr.clientapp.typing import Mod

from fedpeft.aggregation import advance
from fedpeft.federation.checkpoint import Checkpoint
from fedpeft.federation.client import client_app
from fedpeft.federation.cohort import roll_call
from fedpeft.federation.folder import RunFolder
from fedpeft.federation.grid import InProcessGrid
from fedpeft.federation.handshake import begin_session
from fedpeft.federation.rounds import Rounds
from fedpeft.federation.server import agreed, simulated_keys
from fedpeft.federation.watcher import Silent
from fedpeft.federation.worker import Worker


def open_rounds(worker: Worker, folder: RunFolder, config: dict[str, str], mod: Mod | None = None) -> Rounds:
    grid = InProcessGrid(client_app([mod] if mod else []), len(worker.client_ids), config)
    roll = roll_call(grid, len(worker.client_ids), agreed(worker))
    end, roll = begin_session(grid, worker, roll, simulated_keys(worker, roll, folder), folder.path.name, Silent())
    return Rounds(grid, worker, roll, end, folder, Silent())


def start(worker: Worker) -> Checkpoint:
    return Checkpoint(0, np.zeros(worker.size, np.float32), {})


def by_hand(worker: Worker, clients: Iterable[str], round_: int = 1) -> np.ndarray:
    """Return where a first round leads when these clients' integers are added in the clear."""
    before = start(worker)
    payloads = [worker.train(client, round_, before.change) for client in clients]
    total = worker.train_codec(round_).decode(np.sum(payloads, axis=0, dtype=np.uint64), len(payloads))
    step, _ = advance(total.mean(), before.state, worker.scenario.aggregation)
    return before.change + step


def names(worker: Worker, *left_out: int) -> list[str]:
    return [client for number, client in enumerate(worker.client_ids) if number not in left_out]
