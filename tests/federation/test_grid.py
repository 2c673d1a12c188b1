"""The in-process Grid: the same replies from one process or many, and no client's failure is anybody else's."""

from __future__ import annotations

import os
import signal

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedpeft.federation.grid import InProcessGrid
from fedpeft.federation.messages import facts, read_facts

NODES = 6


def app(dies: int | None = None, raises: int | None = None) -> ClientApp:
    made = ClientApp()

    @made.query("hello")
    def hello(message: Message, context: Context) -> Message:
        number = int(context.node_config["partition-id"])
        if number == dies:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == raises:
            raise ValueError(f"client {number} has no pencil")
        return Message(facts({"number": number, "pid": os.getpid()}), reply_to=message)

    return made


def ask(grid: InProcessGrid) -> dict[int, Message]:
    asked = [Message(RecordDict(), node, "query.hello") for node in grid.get_node_ids()]
    return {m.metadata.src_node_id - 2: m for m in grid.stream(asked)}


@pytest.mark.parametrize("workers", [1, 3])
def test_every_node_answers_as_itself(workers: int) -> None:
    with InProcessGrid(app(), NODES, {}, workers) as grid:
        answers = ask(grid)
    assert sorted(answers) == list(range(NODES))
    assert all(read_facts(m)["number"] == number for number, m in answers.items())
    assert (len({read_facts(m)["pid"] for m in answers.values()}) > 1) == (workers > 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_client_that_raises_answers_with_its_reason(workers: int) -> None:
    with InProcessGrid(app(raises=2), NODES, {}, workers) as grid:
        answers = ask(grid)
    assert "client 2 has no pencil" in answers[2].error.reason
    assert [n for n, m in answers.items() if m.has_error()] == [2]


def test_a_worker_killed_at_its_work_costs_one_reply_and_is_replaced() -> None:
    with InProcessGrid(app(dies=3), NODES, {}, 2) as grid:
        for _ in range(2):
            answers = ask(grid)
            assert sorted(answers) == list(range(NODES))
            assert [n for n, m in answers.items() if m.has_error()] == [3]
            assert "died" in answers[3].error.reason


def test_no_worker_outlives_its_grid() -> None:
    with InProcessGrid(app(), NODES, {}, 2) as grid:
        pids = {int(read_facts(m)["pid"]) for m in ask(grid).values()}  # type: ignore[arg-type]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
