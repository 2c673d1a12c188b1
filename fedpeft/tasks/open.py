"""Bring data and base together: the base's head depends on the labels, the encoding on the tokenizer."""

from __future__ import annotations

from typing import Any

from fedpeft.base import Base, load_base
from fedpeft.base.vision import load_vision
from fedpeft.data import Federation, load_federation
from fedpeft.data.labelled import load_labelled
from fedpeft.data.pictures import load_pictures
from fedpeft.errors import ScenarioError, nearest
from fedpeft.tasks.caption import Caption
from fedpeft.tasks.chat import Chat
from fedpeft.tasks.classification import Classification
from fedpeft.tasks.next_word import NextWord
from fedpeft.tasks.ranking import Ranking
from fedpeft.tasks.task import Task

TASKS = (NextWord.kind, Chat.kind, Classification.kind, Ranking.kind, Caption.kind)


def open_task(
    kind: str,
    data: str,
    base: str,
    dtype: str,
    precision: str,
    length: int,
    most: int | None = None,
    pooling: str = "mean",
    packing: bool = True,
    own: Federation | None = None,
) -> Task[Any]:
    """Load a federation and the base that fits it.

    Parameters
    ----------
    kind : {"next_word", "chat", "classification", "reply_ranking", "caption"}
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
    packing : bool
        Whether a row holds several chat examples.
    own : Federation, optional
        Messages that no name leads to, such as a device's own; instead of ``data``.

    Raises
    ------
    DataError, BaseError
        When either is not found or they do not fit.
    """
    if kind == NextWord.kind:
        federation = own or load_federation(data)
        return NextWord(load_base(base, dtype, precision=precision), federation, length, most)
    if kind == Chat.kind:
        return Chat(load_base(base, dtype, precision=precision), own or load_federation(data), length, most, packing)
    if kind == Classification.kind:
        labelled = load_labelled(data)
        loaded = load_base(base, dtype, labels=len(labelled.labels()), precision=precision)
        return Classification(loaded, labelled, length, most, pooling)
    if kind == Ranking.kind:
        federation = load_federation(data)
        return Ranking(load_base(base, dtype, labels=0, precision=precision), federation, length, most)
    if kind == Caption.kind:
        return Caption(_vision(base, dtype, precision), load_pictures(data), length, most)
    raise ScenarioError("task.kind", kind, "a known task", nearest(kind, TASKS))


def held(task: Task[Any], dtype: str, precision: str) -> Task[Any]:
    """Return the same examples over a copy of the base of its own, held in another precision.

    Parameters
    ----------
    task : Task
        As :func:`open_task` makes it.
    dtype, precision : str
        As of :func:`open_task`.

    Raises
    ------
    BaseError
        When the base's files are gone or damaged.
    """
    if task.kind == Caption.kind:
        return task.over(_vision(task.base.name, dtype, precision))
    return task.over(load_base(task.base.name, dtype, labels=task.base.labels, precision=precision))


def _vision(name: str, dtype: str, precision: str) -> Base:
    if precision != "full":
        raise ScenarioError("base.precision", precision, "full", "vision–language bases are not quantized yet")
    return load_vision(name, dtype)
