"""Under every method an example in a packed row computes what it computes alone, or the method says it does not."""

import numpy as np
import pytest
import torch

from fedpeft.data.packing import packed, padded
from fedpeft.data.replies import Example
from fedpeft.data.windows import IGNORED
from fedpeft.errors import ScenarioError
from fedpeft.methods.attached import SHARED
from fedpeft.methods.method import CAUSAL, known_methods
from tests.methods.test_every_method import attach, method_for

RNG = np.random.default_rng(5)
EXAMPLES = [
    Example(ids, [IGNORED] * (len(ids) // 2) + ids[len(ids) // 2 :])
    for ids in (RNG.integers(3, 120, length).tolist() for length in (9, 3, 5, 7, 2, 6))
]


@torch.no_grad()
@pytest.mark.parametrize("name", [n for n, kind in known_methods().items() if CAUSAL in kind.tasks])
def test_an_example_computes_alone_what_it_computes_in_a_packed_row(name):
    method = method_for(name)
    task, attached = attach(method, CAUSAL)
    start = attached.read(SHARED)
    attached.write(SHARED, start + RNG.normal(0, 0.1, start.shape).astype(np.float32))
    losses = []
    for rows in (padded(EXAMPLES, 16, 0), packed(EXAMPLES, 16, 0)):
        (batch,) = task.batches(rows, np.arange(len(rows)), len(rows))
        if method.precedes and rows.positions is not None:
            with pytest.raises(ScenarioError, match="attention_mask"):
                task.predict(attached.model, batch)
            return
        logits, targets = task.predict(attached.model, batch)
        losses.append(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
    torch.testing.assert_close(*losses, rtol=2e-4, atol=1e-4)
