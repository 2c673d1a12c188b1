"""A client whose training diverges sends nothing at all: masked, one NaN would spoil the sum and nobody could say whose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message

from fedpeft.errors import RunError
from fedpeft.federation import worker as module
from fedpeft.federation.folder import RunFolder
from fedpeft.federation.worker import Worker
from fedpeft.methods.attached import SHARED
from tests.federation.secure_rounds import by_hand, names, open_rounds, start

VICTIM = "user-02"


def poison(worker: Worker, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[np.ndarray], np.ndarray]) -> None:
    """Let one client's training end somewhere else."""
    honest = module.train

    def diverging(attached: Any, slot: str, task: Any, own: Any, *more: Any, **named: Any) -> Any:
        trained = honest(attached, slot, task, own, *more, **named)
        if own is worker.splits(VICTIM).train:
            attached.write(SHARED, spoil(attached.read(SHARED)))
        return trained

    monkeypatch.setattr(module, "train", diverging)


def one(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def spoil(vector: np.ndarray) -> np.ndarray:
        vector = vector.copy()
        vector[7] = value
        return vector

    return spoil


CASES = {
    "a NaN": one(float("nan")),
    "an infinity": one(float("inf")),
    "minus infinity": one(float("-inf")),
    "all NaN": lambda vector: np.full_like(vector, np.nan),
}


@pytest.mark.parametrize("case", CASES)
def test_numbers_that_are_none_are_refused_before_masking(
    case: str, worker: Worker, folder: RunFolder, config: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = by_hand(worker, names(worker, 2))
    poison(worker, monkeypatch, CASES[case])
    sent: list[Message] = []

    def mod(message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
        answer = call_next(message, context)
        if message.metadata.message_type == "train" and context.node_config["partition-id"] == 2:
            sent.append(answer)
        return answer

    row, after = open_rounds(worker, folder, config, mod).one(1, start(worker))
    assert not sent  # the client app raised; the reply is an error without content
    assert row["reasons"].keys() == {VICTIM}
    assert "update: found 'NaN or infinity', expected finite numbers" in row["reasons"][VICTIM]
    assert not list((worker.states / VICTIM / "session").glob("*/round"))  # nothing was masked
    assert row["contributors"] == 4
    assert np.array_equal(after.change, expected)


def test_huge_but_finite_numbers_are_clipped_and_counted(
    worker: Worker, folder: RunFolder, config: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(worker, monkeypatch, one(1e3))
    row, after = open_rounds(worker, folder, config).one(1, start(worker))
    assert row["contributors"] == 5
    assert row["clipped"] > 0
    assert np.isfinite(after.change).all()


def test_finite_numbers_whose_squares_fit_nowhere_are_refused_too(
    worker: Worker, folder: RunFolder, config: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(worker, monkeypatch, one(1e30))
    row, _ = open_rounds(worker, folder, config).one(1, start(worker))
    assert "update lane squared_norm" in row["reasons"][VICTIM]
    assert row["contributors"] == 4


def test_a_diverged_client_can_take_part_in_the_next_round(
    worker: Worker, folder: RunFolder, config: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_rounds(worker, folder, config)
    with monkeypatch.context() as patched:
        poison(worker, patched, CASES["a NaN"])
        _, after = run.one(1, start(worker))
    row, _ = run.one(2, after)
    assert row["contributors"] == 5


def test_when_all_diverge_the_run_says_so(
    worker: Worker, folder: RunFolder, config: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "require_finite", _never)
    with pytest.raises(RunError, match="NaN or infinity"):
        open_rounds(worker, folder, config).one(1, start(worker))


def _never(*_: object) -> None:
    from fedpeft.adapters.update import require_finite

    require_finite(np.array([np.nan]))
