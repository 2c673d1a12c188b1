"""A step under every registered method is counted, on tiny models of both kinds."""

import numpy as np
import pytest

from fedpeft.methods.attached import SHARED
from fedpeft.methods.method import CAUSAL
from fedpeft.tasks.classification import Classification
from fedpeft.tasks.next_word import NextWord
from fedpeft.training import Training
from fedpeft.training.footprint import Held, Rehearsal

from ..methods import tiny
from ..methods.test_every_method import CASES, attach, examples, method_for


def bare(kind):
    """Return a task over a tiny model with nothing on it."""
    if kind == CAUSAL:
        return NextWord(tiny.base_of(tiny.llama()), None, 16)
    return Classification(tiny.base_of(tiny.bert()), None, 16)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_step_is_counted_and_more_at_once_takes_more(name, kind):
    method = method_for(name)
    _, attached = attach(method, kind)
    task = bare(kind)
    rehearsal, some, found = Rehearsal(task, Held("float32", method.precision), method), examples(kind, 1), []
    for size in (1, 4):
        batch = next(task.batches(some, np.arange(size), size))
        found.append(rehearsal.footprint(Training(steps=1, batch=size), SHARED, batch))
    assert found[1].working > found[0].working > 0
    assert found[0].optimizer == 8 * attached.schemas[SHARED].size
