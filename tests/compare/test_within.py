"""Candidates are fitted into a budget by what is counted on the base itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedpeft.base import Base, load_base
from fedpeft.compare.candidates import Candidate
from fedpeft.compare.within import within
from fedpeft.methods import parse_method
from fedpeft.methods.attached import SHARED
from fedpeft.tasks import Batch, open_task
from fedpeft.training import Training
from fedpeft.training.footprint import Rehearsal
from tests.compare.conftest import row

METHODS = ("lora", "pfeiffer", "prompt_tuning", "full")


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base("keyboard", "float32")


def candidate(method: str) -> Candidate:
    counted = {"trainable": 1, "bytes_up": 1, "bytes_down": 1, "adapter_bytes": 1}
    return Candidate(row(method, 0.5, 100), parse_method({"name": method}), 0, "all", "shared", linear=True, **counted)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_fits_exactly_where_it_says(base: Base, method: str) -> None:
    plain = within(base, candidate(method), 8, 32, None)
    least = within(base, candidate(method), 8, 32, 1)
    assert (plain.held.dtype, plain.thrift.micro_batch, plain.window) == ("float32", 8, 32)
    assert least.window == 16 and least.footprint.total <= plain.footprint.total
    assert within(base, candidate(method), 8, 32, least.footprint.total).footprint.total == least.footprint.total


def test_what_fits_is_within_the_budget_and_is_what_a_federations_own_task_counts(base: Base) -> None:
    lora = candidate("lora")
    plain, least = (within(base, lora, 8, 32, budget).footprint.total for budget in (None, 1))
    assert least < plain
    task = open_task("next_word", "keyboard", "keyboard", "float32", "full", 32, None)
    for budget in range(least, plain + 1, (plain - least) // 4):
        found = within(base, lora, 8, 32, budget)
        assert found.footprint.total <= budget
        training, fullest = found.thrift.of(Training(steps=1, batch=8)), task.fullest(8)
        batch = Batch(fullest.ids[:, : found.window], fullest.labels[:, : found.window])
        assert Rehearsal(task, found.held, lora.method).footprint(training, SHARED, batch) == found.footprint


def test_a_window_is_shortened_last(base: Base) -> None:
    lora = candidate("lora")
    least = within(base, lora, 1, 32, 1)
    assert (least.held.precision, least.window) == ("nf4", 16)
    whole = replace(least, window=32)
    assert within(base, lora, 1, 32, 10**9).window == whole.window
    full = within(base, candidate("full"), 8, 32, 1)
    assert (full.held.dtype, full.held.precision) == ("float32", "full")
