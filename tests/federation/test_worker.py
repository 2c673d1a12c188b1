"""What of a client's vector travels, what stays, and what a round starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpeft.adapters.partition import Role
from fedpeft.errors import ScenarioError
from fedpeft.federation.worker import TRAIN_LANES, Worker
from fedpeft.methods.attached import SHARED
from fedpeft.scenario import parse_scenario

from .conftest import TINY

CLIENT = "user-00"


def open_worker(states: Path, tables: dict[str, Any], *overrides: str) -> Worker:
    return Worker(parse_scenario(tables, overrides), states)


def moved(worker: Worker, round_: int, change: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Train one round and return, by kind of coordinate, how far the slot's coordinates went."""
    start = worker.start(CLIENT, round_, np.zeros(worker.size, np.float32) if change is None else change)
    payload = worker.train(CLIENT, round_, np.zeros(worker.size, np.float32) if change is None else change)
    assert payload.shape == (worker.train_codec(round_).length,)
    schema = worker.attached.schemas[SHARED]
    distance = np.abs(worker.attached.read(SHARED) - start)
    return {letter: distance[schema.mask(lambda n, letter=letter: f"lora_{letter}" in n)] for letter in "AB"}


@pytest.mark.parametrize(
    ("partition", "round_", "trained", "travels"),
    [
        ("all", 1, "AB", "AB"),
        ("ffa", 1, "B", "B"),
        ("alternate", 1, "A", "A"),
        ("alternate", 2, "B", "B"),
        ("fedsa", 1, "AB", "A"),
    ],
)
def test_a_partition_decides_what_is_trained_and_what_travels(
    tmp_path: Path, partition: str, round_: int, trained: str, travels: str
) -> None:
    worker = open_worker(tmp_path, TINY, f"federation.partition={partition}", "training.steps=2")
    schema = worker.attached.schemas[SHARED]
    expected = schema.mask(lambda name: any(f"lora_{letter}" in name for letter in travels))
    assert np.array_equal(worker.shared_mask(round_), expected)
    assert worker.train_codec(round_).length >= expected.sum() + len(TRAIN_LANES)
    # A moves once B is not zero: from a global change that does something.
    change = np.random.default_rng(0).normal(0, 0.01, worker.size).astype(np.float32)
    distances = moved(worker, round_, worker.whole(worker.public(change)))
    assert {letter for letter, far in distances.items() if far.any()} == set(trained)


@pytest.mark.parametrize(
    ("partition", "public", "private"),
    [("all", "AB", ""), ("ffa", "B", ""), ("alternate", "AB", ""), ("fedsa", "A", "B")],
)
def test_what_the_federation_never_moves_is_not_sent_down_either(
    tmp_path: Path, partition: str, public: str, private: str
) -> None:
    worker = open_worker(tmp_path, TINY, f"federation.partition={partition}")
    mask = worker.attached.schemas[SHARED].mask
    assert np.array_equal(worker.public_mask, mask(lambda n: any(f"lora_{x}" in n for x in public)))
    assert np.array_equal(worker.private_mask, mask(lambda n: any(f"lora_{x}" in n for x in private)))
    change = np.arange(worker.size, dtype=np.float32)
    arrived = worker.whole(worker.public(change))
    assert np.array_equal(arrived, np.where(worker.public_mask, change, 0.0))


def test_a_client_goes_on_with_its_own_factor_and_a_repeated_round_with_the_one_before(tmp_path: Path) -> None:
    worker = open_worker(tmp_path, TINY, "federation.partition=fedsa")
    zero, private = np.zeros(worker.size, np.float32), worker.private_mask
    assert np.array_equal(worker.start(CLIENT, 1, zero), worker.attached.initial[SHARED])
    first = worker.train(CLIENT, 1, zero)
    own = worker.start(CLIENT, 2, zero)[private]
    assert own.any()
    assert np.array_equal(worker.start(CLIENT, 2, zero)[~private], worker.attached.initial[SHARED][~private])
    assert not worker.start("user-01", 2, zero)[private].any()
    worker.train(CLIENT, 2, zero)
    assert not np.array_equal(worker.start(CLIENT, 3, zero)[private], own)
    # Again, as after an interruption: the same start, the same bits, the same payload.
    assert np.array_equal(worker.start(CLIENT, 1, zero), worker.attached.initial[SHARED])
    assert np.array_equal(worker.train(CLIENT, 1, zero), first)
    assert np.array_equal(worker.start(CLIENT, 2, zero)[private], own)


def test_nothing_of_its_own_is_written_where_everything_is_shared(tmp_path: Path) -> None:
    worker = open_worker(tmp_path, TINY)
    worker.train(CLIENT, 1, np.zeros(worker.size, np.float32))
    assert not list(tmp_path.iterdir())


def test_what_a_scenario_names_private_stays(tmp_path: Path) -> None:
    worker = open_worker(tmp_path, TINY, "federation.private=['layers.0.', 'q_proj']")
    for name in worker.attached.schemas[SHARED].names():
        expected = Role.PRIVATE if "layers.0." in name or "q_proj" in name else Role.SHARED
        assert worker.role(1, name) is worker.role(2, name) is expected


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["federation.private=['q_proj', 'q_porj']"],
            "federation.private: found 'q_porj', expected part of a tensor's name; such as base_model.model.",
        ),
        (
            ["federation.private=['lora']"],
            "method.name: found 'lora', expected something to share in every round; all of it is private or frozen",
        ),
        (
            ["federation.partition=alternate", "federation.private=['lora_A']"],
            "method.name: found 'lora', expected something to share in every round; all of it is private or frozen",
        ),
    ],
)
def test_names_that_no_tensor_has_and_rounds_in_which_nothing_is_shared_are_refused(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(ScenarioError) as refused:
        open_worker(tmp_path, TINY, *overrides)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize("partition", ["ffa", "alternate", "fedsa"])
def test_a_partition_of_a_method_whose_two_factors_have_other_names_is_refused(tmp_path: Path, partition: str) -> None:
    """VeRA is multilinear, in two vectors: no tensor of it is A or B."""
    tables = {**TINY, "method": {"name": "vera", "rank": 4}}
    with pytest.raises(ScenarioError) as refused:
        open_worker(tmp_path, tables, f"federation.partition={partition}")
    expected = f"federation.partition: found '{partition}', expected all; vera has no factors lora_A and lora_B"
    assert str(refused.value) == expected


class TestAHeadOfOnesOwn:
    """A classifier's head that never leaves its owner."""

    @pytest.fixture(scope="class")
    def sizes(self, classes: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Worker]:
        return {
            head: open_worker(tmp_path_factory.mktemp(head), {**classes, "task": {**classes["task"], "head": head}})
            for head in ("private", "shared")
        }

    def test_it_is_no_part_of_what_travels_in_either_direction(self, sizes: dict[str, Worker]) -> None:
        private, shared = sizes["private"], sizes["shared"]
        names = private.attached.schemas[SHARED]
        head = names.mask(lambda name: ".classifier." in name)
        assert head.sum() == 4 * 32 + 4
        assert private.size == shared.size  # the slot holds it either way
        assert np.array_equal(private.private_mask, head)
        assert np.array_equal(private.public_mask, ~head)
        assert private.train_codec(1).length == shared.train_codec(1).length - head.sum()
        assert shared.public_mask.all() and not shared.private_mask.any()

    def test_each_client_trains_it_and_keeps_it(self, sizes: dict[str, Worker]) -> None:
        worker = sizes["private"]
        zero, mask = np.zeros(worker.size, np.float32), worker.private_mask
        for client in ("person-0", "person-1"):
            worker.train(client, 1, zero)
        own = [worker.start(client, 2, zero)[mask] for client in ("person-0", "person-1", "person-2")]
        assert not np.array_equal(own[0], own[1])
        assert np.array_equal(own[2], worker.attached.initial[SHARED][mask])
        sent = {path.name for path in worker.states.iterdir()}
        assert sent == {"person-0", "person-1"}
