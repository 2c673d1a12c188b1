"""Fit a candidate into a device's memory: counted on the base in question by the memory plan, not by a formula."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, cast

from fedpeft.base import Base
from fedpeft.compare.candidates import Candidate
from fedpeft.compare.row import FULL
from fedpeft.data.federation import Federation
from fedpeft.data.labelled import LabelledFederation
from fedpeft.methods.attached import SHARED
from fedpeft.tasks import Task
from fedpeft.tasks.classification import Classification
from fedpeft.tasks.next_word import NextWord
from fedpeft.training import Training
from fedpeft.training.footprint import Footprint, Held, Rehearsal
from fedpeft.training.plan import Choice, Thrift, plan, smallest, thrifts, windows


def within(base: Base, candidate: Candidate, batch: int, length: int, budget: int | None) -> Choice:
    """Return how to train a candidate so that it fits; what needs least when nothing does.

    Parameters
    ----------
    base : Base
        In full float32, with nothing attached.
    candidate : Candidate
    batch, length : int
        Examples of a step, and tokens of each.
    budget : int or None
        Bytes of a client's process; without any, plain training is counted.
    """
    helds, ways = _helds(candidate), _ways(base, candidate, batch)
    task = _task(base, length)
    lengths, count = windows(length, task.shortest), _counter(task, candidate, batch)
    # The two ends are asked first: where memory is plenty one step is counted, where nothing fits three, of dozens.
    plain = Choice(helds[0], ways[0], length, count(helds[0], ways[0], length))
    if budget is None or plain.footprint.total <= budget:
        return plain
    least = smallest(helds[-1], ways, lengths[-1], count)
    return least if least.footprint.total > budget else plan(budget, helds, ways, lengths, count)


def _ways(base: Base, candidate: Candidate, batch: int) -> list[Thrift]:
    training = Training(steps=1, batch=batch)
    return thrifts(training, chunks=base.labels is None, checkpoints=candidate.method.checkpointing)


def _helds(candidate: Candidate) -> list[Held]:
    """Return how the base may be held, from what was measured on."""
    method = candidate.method
    if method.name == FULL:
        return [Held("float32", "full")]
    if method.precision != "full":
        return [Held(dtype, method.precision) for dtype in ("float32", "bfloat16")]
    return [Held("float32", "full"), *(Held("bfloat16", precision) for precision in ("full", "int8", "nf4"))]


def _counter(task: Task[Any], candidate: Candidate, batch: int) -> Callable[[Held, Thrift, int], Footprint]:
    """Return a function that counts a way on the base, each once."""

    @cache
    def rehearsal(held: Held) -> Rehearsal:
        return Rehearsal(task, held, candidate.method)

    @cache
    def count(held: Held, thrift: Thrift, window: int) -> Footprint:
        training = thrift.of(Training(steps=1, batch=batch))
        return rehearsal(held).footprint(training, SHARED, task.cut(window).fullest(batch))

    return count


def _task(base: Base, length: int) -> Task[Any]:
    """Return a task that reads batches alone; nobody's data is opened."""
    if base.labels is None:
        return NextWord(base, cast(Federation, None), length)
    return Classification(base, cast(LabelledFederation, None), length)
