"""Rounds survive what clients do to them; here on the plain channel, on the secure one in ``test_secure``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedpeft.errors import RunError
from fedpeft.federation.checkpoint import Checkpoint
from fedpeft.federation.client import client_app
from fedpeft.federation.cohort import roll_call
from fedpeft.federation.folder import METRICS, RunFolder
from fedpeft.federation.grid import InProcessGrid
from fedpeft.federation.messages import parcel
from fedpeft.federation.rounds import Rounds
from fedpeft.federation.server import agreed
from fedpeft.federation.watcher import Silent
from fedpeft.federation.worker import Worker
from fedpeft.scenario import Scenario, parse_scenario
from fedpeft.secagg import PlainServer

from .conftest import TINY


@pytest.fixture
def tiny() -> Scenario:
    """Return a scenario whose clients protect nothing."""
    return parse_scenario(TINY, ["channel.name=plain"])


Misbehaviour = Callable[[Message, Context, Message], Message]


def wrapped(misbehave: Misbehaviour) -> ClientApp:
    """Return the real client app, whose answers to ``train`` pass through a hostile hand."""

    def mod(message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
        answer = call_next(message, context)
        return misbehave(message, context, answer) if message.metadata.message_type == "train" else answer

    return client_app([mod])


def rounds(app: ClientApp, worker: Worker, folder: RunFolder, config: dict[str, str]) -> Rounds:
    grid = InProcessGrid(app, len(worker.client_ids), config)
    return Rounds(grid, worker, roll_call(grid, 4, agreed(worker)), PlainServer(), folder, Silent())


def test_a_round_without_enough_contributors_is_burnt_and_the_next_one_goes_on(
    worker: Worker, folder: RunFolder, config: dict[str, str]
) -> None:
    def all_but_one_fail_in_round_one(message: Message, context: Context, answer: Message) -> Message:
        in_round_one = message.content.config_records["plan"]["round"] == 1
        if in_round_one and context.node_config["partition-id"] != 1:
            raise RuntimeError("battery empty")
        return answer

    run = rounds(wrapped(all_but_one_fail_in_round_one), worker, folder, config)
    run.run()
    _, first, second = folder.lines(METRICS)
    assert first["burnt"]
    assert first["contributors"] <= 1
    assert "battery empty" in next(iter(first["reasons"].values()))
    assert "burnt" not in second
    assert second["contributors"] == 4


def test_garbage_from_one_client_is_a_failure_and_changes_nothing_of_the_sum(
    worker: Worker, folder: RunFolder, config: dict[str, str]
) -> None:
    def garbage(message: Message, context: Context, answer: Message) -> Message:
        if context.node_config["partition-id"] == 0:
            levels = np.full(worker.train_codec(1).length, worker.ring.levels + 1, np.uint16)
            return Message(parcel(levels.tobytes()), reply_to=message)
        return answer

    def silence(message: Message, context: Context, answer: Message) -> Message:
        if context.node_config["partition-id"] == 0:
            raise RuntimeError("gone")
        return answer

    poisoned = rounds(wrapped(garbage), worker, folder, config)
    row, after = poisoned.one(1, _start(worker))
    assert row["failures"] == 1
    assert "expected ≤" in row["reasons"]["user-00"]
    _, without = rounds(wrapped(silence), worker, folder, config).one(1, _start(worker))
    assert np.array_equal(after.change, without.change)


def test_a_round_in_which_every_client_fails_ends_the_run_with_the_reason(
    worker: Worker, folder: RunFolder, config: dict[str, str]
) -> None:
    def fail(message: Message, context: Context, answer: Message) -> Message:
        raise RuntimeError("the same bug everywhere")

    with pytest.raises(RunError, match="the same bug everywhere"):
        rounds(wrapped(fail), worker, folder, config).run()


def test_the_sum_does_not_depend_on_the_order_of_arrival(
    worker: Worker, folder: RunFolder, config: dict[str, str]
) -> None:
    run = rounds(client_app(), worker, folder, config)
    _, forward = run.one(1, _start(worker))
    run.roll.nodes.update({c: run.roll.nodes[c] for c in reversed(run.roll.clients)})
    stream = run.grid.stream
    run.grid.stream = lambda messages: reversed(list(stream(messages)))  # type: ignore[attr-defined]
    _, backward = run.one(1, _start(worker))
    assert np.array_equal(forward.change, backward.change)


def _start(worker: Worker) -> Checkpoint:
    return Checkpoint(0, np.zeros(worker.size, np.float32), {})
