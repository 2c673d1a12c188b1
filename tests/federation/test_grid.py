"""The in-process Grid: the same replies from one process or many, and no client's failure is anybody else's."""

from __future__ import annotations

import os
import signal

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedpeft.errors import RunError
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


def questions(grid: InProcessGrid) -> list[Message]:
    return [Message(RecordDict(), node, "query.hello") for node in grid.get_node_ids()]


def ask(grid: InProcessGrid) -> dict[int, Message]:
    return {m.metadata.src_node_id - 2: m for m in grid.stream(questions(grid))}


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


@pytest.mark.parametrize("workers", [1, 2])
def test_replies_to_pushed_messages_are_pulled_by_id_in_any_portion(workers: int) -> None:
    with InProcessGrid(app(dies=3 if workers > 1 else None), NODES, {}, workers) as grid:
        nodes, ids = grid.get_node_ids(), grid.push_messages(questions(grid))
        assert len(set(ids)) == NODES
        sent = dict(zip(ids, nodes, strict=True))
        portions = [grid.pull_messages(ids[4:]), grid.pull_messages([ids[0], ids[0]]), grid.pull_messages(ids[1:4])]
        assert [len(portion) for portion in portions] == [2, 1, 3]
        replies = [reply for portion in portions for reply in portion]
        assert {m.metadata.reply_to_message_id: m.metadata.src_node_id for m in replies} == sent
        assert [m.metadata.src_node_id - 2 for m in replies if m.has_error()] == ([3] if workers > 1 else [])
        assert grid.pull_messages([]) == []


def test_an_id_that_was_never_pushed_or_is_pulled_twice_is_refused_and_loses_no_other() -> None:
    with InProcessGrid(app(), NODES, {}) as grid:
        first, second, *_ = grid.push_messages(questions(grid))
        grid.pull_messages([first])
        with pytest.raises(RunError, match=f"message ids: found '{first}, none', expected ids of push_messages; pull"):
            grid.pull_messages([first, second, "none"])
        assert len(grid.pull_messages([second])) == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_messages_sent_at_once_leave_pushed_ones_lying(workers: int) -> None:
    with InProcessGrid(app(), NODES, {}, workers) as grid:
        ids = grid.push_messages(questions(grid))
        assert len(grid.send_and_receive(questions(grid))) == NODES
        assert {m.metadata.reply_to_message_id for m in grid.pull_messages(ids)} == set(ids)
