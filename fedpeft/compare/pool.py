"""All clients' examples in one heap: what a server could train on if people gave their text away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np

from fedpeft.errors import ScenarioError
from fedpeft.scenario import Scenario
from fedpeft.seeds import stream
from fedpeft.tasks import Encoded, Task, open_task

MOST_SCORED = 1024
"""Test examples that are scored at most: a sample drawn by the seed, the same for every method."""
_SHORT = 128


@dataclass(frozen=True)
class Pool:
    """A task and its pooled examples.

    Parameters
    ----------
    task : Task
        Over a base that nothing is attached to.
    train, validation, test : Encoded
    clients : tuple of str
    """

    task: Task[Any]
    train: Encoded
    validation: Encoded
    test: Encoded
    clients: tuple[str, ...]

    @property
    def metric(self) -> str:
        """What quality is: whether a class is the first prediction, or a word among the first three."""
        return "top1" if self.task.kind == "classification" else "top3"

    def share(self, share: float, seed: int) -> Encoded:
        """Return a seeded sample of the training examples; a smaller share is part of a larger one."""
        count = max(1, round(share * len(self.train)))
        if count >= len(self.train):
            return self.train
        return rows_of(self.train, np.sort(stream(seed, "compare share").permutation(len(self.train))[:count]))


def open_pool(scenario: Scenario, scored: int = MOST_SCORED, precision: str = "full", like: Pool | None = None) -> Pool:
    """Load a scenario's base and pool what its clients have.

    Parameters
    ----------
    scenario : Scenario
    scored : int
        Validation and test examples that are kept at most.
    precision : str
        How the base's weights are held.
    like : Pool, optional
        Whose examples to use again: they do not depend on the precision.

    Raises
    ------
    ScenarioError
        When the clients' examples do not go together, or there are none.
    """
    data = scenario.data
    task = open_task(
        scenario.task.kind,
        data.federation,
        scenario.base.name,
        scenario.base.dtype,
        precision,
        data.window,
        data.max_windows,
        scenario.task.pooling,
        scenario.packing,
    )
    if data.window <= _SHORT and scenario.task.kind != "caption":
        # As a client's worker does: on short texts the plain kernels are faster.
        task.base.model.set_attn_implementation("eager")
    if like is not None:
        return replace(like, task=task)
    clients = tuple(task.client_ids())[: data.clients]
    splits = [task.splits(client) for client in clients]
    train, validation, test = (pooled([getattr(s, part) for s in splits]) for part in ("train", "validation", "test"))
    for part, examples in (("train", train), ("validation", validation), ("test", test)):
        if not examples.tokens:
            raise ScenarioError("data.federation", data.federation, f"{part} examples to compare methods on")
    validation, test = (
        sample(e, scored, scenario.seed, part) for e, part in ((validation, "validation"), (test, "test"))
    )
    return Pool(task, train, validation, test, clients)


def sample(examples: Encoded, most: int, seed: int, label: str) -> Encoded:
    """Return at most so many of the examples, chosen by the seed."""
    if len(examples) <= most:
        return examples
    chosen = stream(seed, "compare", label).choice(len(examples), most, replace=False)
    return rows_of(examples, np.sort(chosen))


def pooled(parts: Sequence[Encoded]) -> Encoded:
    """Join examples of one task; shorter ones are padded.

    Raises
    ------
    ScenarioError
        When they are of different tasks.
    """
    filled = [part for part in parts if len(part)]
    if not filled:
        return parts[0]
    joined: dict[str, Any] = {}
    for name, first in _arrays(filled[0]).items():
        arrays = [getattr(part, name) for part in filled]
        if first.ndim == 2:
            width = max(array.shape[1] for array in arrays)
            arrays = [np.pad(array, ((0, 0), (0, width - array.shape[1]))) for array in arrays]
        joined[name] = np.concatenate(arrays)
    for part in filled[1:]:
        for name, value in _others(filled[0]).items():
            if getattr(part, name) != value:
                raise ScenarioError("data.federation", name, "clients of one task", "compare one data set at a time")
    return _replaced(filled[0], joined)


def rows_of(examples: Encoded, rows: np.ndarray) -> Encoded:
    """Return some of the examples."""
    return _replaced(examples, {name: array[rows] for name, array in _arrays(examples).items()})


def _arrays(examples: Encoded) -> dict[str, np.ndarray]:
    return {name: value for name, value in _values(examples).items() if isinstance(value, np.ndarray)}


def _others(examples: Encoded) -> dict[str, Any]:
    return {name: value for name, value in _values(examples).items() if not isinstance(value, np.ndarray)}


def _values(examples: Any) -> dict[str, Any]:
    return {f.name: getattr(examples, f.name) for f in fields(examples)}


def _replaced(examples: Any, values: dict[str, Any]) -> Encoded:
    assert is_dataclass(examples)  # noqa: S101 - every task's examples are
    found: Encoded = replace(examples, **values)  # type: ignore[type-var, assignment]
    return found
