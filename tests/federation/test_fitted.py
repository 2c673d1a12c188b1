"""A class is fitted to its budget by the scenario alone, the same each time; auto is settled once, to a number."""

import re

import pytest

from fedpeft.errors import FedpeftError
from fedpeft.federation.fitted import SHARE, available, fitted, settled
from fedpeft.federation.fleet import Fleet
from fedpeft.scenario import Scenario
from fedpeft.scenario.devices import DeviceTable
from fedpeft.tasks import open_task
from fedpeft.training.amounts import amount

MANY = 10**12


@pytest.fixture(scope="module")
def task():
    return open_task("next_word", "keyboard", "keyboard", "bfloat16", "full", 64)


def scenario(memory: str, precision: str = "auto", **training: object) -> Scenario:
    return Scenario(
        name="fitted",
        base={"precision": precision},
        training={"steps": 1, "memory": memory, **training},
        personalization={"people": 0},
    )


def found(task, wanted: Scenario) -> dict:
    kind, record = fitted(wanted, wanted.classes[0], task)
    assert (kind.precision, kind.chunk, kind.micro_batch, kind.window) == tuple(
        record[name] for name in ("precision", "chunk", "micro_batch", "window")
    )
    assert record["predicted_bytes"] <= record["budget_bytes"]
    return record


def test_a_smaller_budget_saves_more_and_the_same_one_the_same(task):
    free = found(task, scenario(f"{MANY}"))
    assert (free["precision"], free["checkpointing"], free["chunk"]) == ("full", False, None)
    tight = found(task, scenario(f"{free['predicted_bytes'] - 1}"))
    assert tight == found(task, scenario(f"{free['predicted_bytes'] - 1}"))
    assert (tight["precision"], tight["chunk"]) == ("full", 64)
    with pytest.raises(FedpeftError, match=r"training.memory: found '1MB', expected at least .*nf4, 16 tokens, 1 at"):
        found(task, scenario("1MB"))


def test_the_window_is_shortened_last_and_examples_are_cut_so(task):
    whole = scenario("1MB", "full")
    whole = whole.model_copy(update={"devices": [DeviceTable(name="all", share=1.0, window=64)]})
    with pytest.raises(FedpeftError, match="64 tokens, 1 at") as least:
        found(task, whole)
    needed = re.search(r"at least (\d+)MB", str(least.value))
    assert needed is not None
    tight = scenario(f"{int(needed[1]) - 1}MB", "full")
    window = found(task, tight)["window"]
    assert window in (16, 32)
    fleet = Fleet(tight)
    client = fleet.clients[0]
    short, whole = fleet.splits(client), task.splits(client)
    assert short.train.ids.shape[1] == window < whole.train.ids.shape[1] == 64
    assert len(short.test) > len(whole.test)
    assert fleet.of(client).task.fullest(2).ids.shape == (2, window)


def test_what_is_set_by_hand_stays(task):
    wanted = scenario("100GB", chunk=7, micro_batch=2)
    record = found(task, wanted)
    assert (record["chunk"], record["micro_batch"]) == (7, 2)
    kind, nothing = fitted(Scenario(name="none"), Scenario(name="none").classes[0], task)
    assert nothing is None and kind == Scenario(name="none").classes[0]


def test_a_fleet_trains_as_was_chosen_also_when_its_scenario_comes_from_the_runs_record():
    first = scenario("1000GB")
    again = Scenario(**first.model_dump(mode="json"))
    fleets = [Fleet(wanted) for wanted in (first, again)]
    assert fleets[0].budgets == fleets[1].budgets != []
    assert fleets[0].reference.kind.precision == fleets[0].reference.base.precision == "full"


def test_auto_becomes_a_share_of_what_is_free():
    before = available()
    each = amount(settled(scenario("auto"), 4).training.memory or "", "memory")
    assert 0.5 * SHARE * before / 4 < each < 1.5 * SHARE * before / 4
    assert settled(scenario("2GB"), 4) == scenario("2GB")
