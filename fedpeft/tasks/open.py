"""Bring data and base together: the base's head depends on the labels, the encoding on the tokenizer."""

from __future__ import annotations

from typing import Any

from fedpeft.base import load_base
from fedpeft.base.vision import load_vision
from fedpeft.data import load_federation
from fedpeft.data.labelled import load_labelled
from fedpeft.data.pictures import load_pictures
from fedpeft.errors import ScenarioError, nearest
from fedpeft.tasks.caption import Caption
from fedpeft.tasks.classification import Classification
from fedpeft.tasks.next_word import NextWord
from fedpeft.tasks.task import Task

TASKS = (NextWord.kind, Classification.kind, Caption.kind)


def open_task(
    kind: str,
    data: str,
    base: str,
    dtype: str,
    precision: str,
    length: int,
    most: int | None = None,
    pooling: str = "mean",
) -> Task[Any]:
    """Load a federation and the base that fits it.

    Parameters
    ----------
    kind : {"next_word", "classification", "caption"}
    data, base : str
        Names, as in a scenario.
    dtype, precision : str
        What the base computes in, and what it is quantized to (``full``: it is not).
    length : int
        Tokens per window or text.
    most : int, optional
        Training windows or texts that are kept of a client, the latest.
    pooling : {"mean", "model"}
        What a classifier's head reads.

    Raises
    ------
    DataError, BaseError
        When either is not found or they do not fit.
    """
    if kind == NextWord.kind:
        federation = load_federation(data)
        return NextWord(load_base(base, dtype, precision=precision), federation, length, most)
    if kind == Classification.kind:
        labelled = load_labelled(data)
        loaded = load_base(base, dtype, labels=len(labelled.labels()), precision=precision)
        return Classification(loaded, labelled, length, most, pooling)
    if kind == Caption.kind:
        if precision != "full":
            raise ScenarioError("base.precision", precision, "full", "vision–language bases are not quantized yet")
        pictures = load_pictures(data)
        return Caption(load_vision(base, dtype), pictures, length, most)
    raise ScenarioError("task.kind", kind, "a known task", nearest(kind, TASKS))
