"""Who takes part is decided by the seed and the names alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from flwr.app import Message
from hypothesis import given
from hypothesis import strategies as st

from fedpeft.errors import ProtocolError, RunError
from fedpeft.federation.client import client_app
from fedpeft.federation.cohort import choose, greetings, heard, roll_call, strangers
from fedpeft.federation.grid import InProcessGrid
from fedpeft.federation.messages import facts, read_facts
from fedpeft.federation.server import agreed
from fedpeft.federation.worker import Worker

names = st.lists(st.text("abcdef", min_size=1, max_size=4), min_size=1, max_size=20, unique=True)


@given(names, st.integers(1, 30), st.integers(0, 5), st.randoms())
def test_a_cohort_has_no_one_twice_and_does_not_depend_on_the_order_of_names(clients, count, seed, random) -> None:
    chosen = choose(clients, count, seed, "cohort", 1)
    assert len(set(chosen)) == len(chosen) == min(count, len(clients))
    assert set(chosen) <= set(clients)
    shuffled = list(clients)
    random.shuffle(shuffled)
    assert choose(shuffled, count, seed, "cohort", 1) == chosen


def test_over_many_rounds_everybody_is_asked_about_equally_often() -> None:
    clients = [f"c{i}" for i in range(20)]
    asked = [client for round_ in range(400) for client in choose(clients, 5, 7, "cohort", round_)]
    counts = [asked.count(client) for client in clients]
    assert sum(counts) == 2000
    # 400 draws at 1/4: mean 100, standard deviation 8.7; five deviations either side.
    assert all(56 < count < 144 for count in counts)


@given(names.filter(lambda n: len(n) > 1))
def test_nobody_is_their_own_stranger_and_everybody_is_somebodys(people) -> None:
    pairs = strangers(people)
    assert all(person != other for person, other in pairs.items())
    assert sorted(pairs.values()) == sorted(people)


def test_the_roll_has_every_ready_client_in_order(worker: Worker, config: dict[str, str]) -> None:
    grid = InProcessGrid(client_app(), 4, config)
    roll = roll_call(grid, 4, agreed(worker))
    assert roll.clients == worker.client_ids
    assert roll.skipped == {}


@pytest.mark.parametrize("part", ["scenario", "schema", "base"])
def test_a_client_that_runs_something_else_is_named(part: str, worker: Worker, config: dict[str, str]) -> None:
    grid, wanted = InProcessGrid(client_app(), 4, config), agreed(worker)
    with pytest.raises(ProtocolError, match=f"client user-0.: {part}"):
        roll_call(grid, 4, replace(wanted, digests={**wanted.digests, part: "0" * 64}))


def test_two_nodes_with_one_name_are_refused(worker: Worker, config: dict[str, str]) -> None:
    class Doubled(InProcessGrid):
        def stream(self, messages, *, timeout=None):
            answers = list(super().stream(messages))
            return [*answers, answers[0]]

    with pytest.raises(ProtocolError, match="client name"):
        roll_call(Doubled(client_app(), 4, config), 4, agreed(worker))


def test_a_node_beyond_the_federation_is_told_how_many_there_are(worker: Worker, config: dict[str, str]) -> None:
    grid = InProcessGrid(client_app(), 5, config)
    with pytest.raises(RunError, match="num-supernodes=4"):
        roll_call(grid, 5, agreed(worker))


def answering(**changed: object):
    """Return a mod that changes what clients say of themselves at the roll call; None leaves it out."""

    def mod(message: Message, context, call_next) -> Message:
        answer = call_next(message, context)
        said = {**read_facts(answer), **changed}
        return Message(facts({k: v for k, v in said.items() if v is not None}), reply_to=message)

    return mod


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (
            {"protocol": 0, "fedpeft": "0.1"},
            r"protocol of client user-0.: found '0 \(fedpeft 0.1\)', expected 1 \(fedpeft [^)]+\), as this server speaks; "
            r"upgrade fedpeft on client user-0.",
        ),
        ({"protocol": 9}, "upgrade fedpeft on this server"),
        ({"protocol": None, "fedpeft": None}, r"found 'none \(fedpeft unknown\)'"),
        ({"device": "toaster"}, "client user-0.: device: found 'toaster'"),
    ],
)
def test_a_client_of_another_version_or_class_is_refused_with_what_to_do(
    changed: dict, expected: str, worker: Worker, config: dict[str, str]
) -> None:
    with pytest.raises(ProtocolError, match=expected):
        roll_call(InProcessGrid(client_app([answering(**changed)]), 4, config), 4, agreed(worker))


def test_a_client_tells_a_server_of_another_version_and_waits_for_the_next(
    worker: Worker, config: dict[str, str]
) -> None:
    grid = InProcessGrid(client_app(), 4, config)
    (newer, none, right) = greetings(grid.get_node_ids()[:3])
    newer.content["facts"]["protocol"] = 2
    none.content.pop("facts")
    answers = grid.send_and_receive([newer, none, right])
    assert "protocol of the server: found '2 (fedpeft" in answers[0].error.reason
    assert "upgrade fedpeft on this device" in answers[0].error.reason
    assert "upgrade fedpeft on the server" in answers[1].error.reason
    assert heard([answers[2]], agreed(worker)).ready == {worker.client_ids[2]: grid.get_node_ids()[2]}


def test_a_mod_wraps_every_call(worker: Worker, config: dict[str, str]) -> None:
    seen = []

    def mod(message: Message, context, call_next) -> Message:
        seen.append(message.metadata.message_type)
        return call_next(message, context)

    roll_call(InProcessGrid(client_app([mod]), 4, config), 4, agreed(worker))
    assert seen == ["query.hello"] * 4
