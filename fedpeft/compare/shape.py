"""The sizes of a base and of its training batches, as the memory they take depends on them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fedpeft.base import Base
from fedpeft.compare.pool import Pool
from fedpeft.compare.row import Shape
from fedpeft.data.windows import IGNORED
from fedpeft.seeds import stream
from fedpeft.tasks import Batch

_BATCHES = 20


def shape_of(base: Base, batch: int, length: int, predictions: int) -> Shape:
    """Return a base's sizes with those of a batch."""
    config: Any = base.model.config.get_text_config()
    output = base.model.get_output_embeddings()
    linear = [
        module.weight.numel()
        for module in base.model.modules()
        if isinstance(module, nn.Linear) and module is not output
    ]
    hidden = int(config.hidden_size)
    return Shape(
        parameters=base.parameters,
        linear=sum(linear),
        layers=int(config.num_hidden_layers),
        hidden=hidden,
        feed_forward=int(getattr(config, "intermediate_size", 4 * hidden)),
        heads=int(config.num_attention_heads),
        vocabulary=base.labels or int(config.vocab_size),
        batch=batch,
        length=length,
        predictions=predictions,
    )


def shape_of_pool(pool: Pool, batch: int, seed: int) -> Shape:
    """Return a base's sizes with those of the largest of a few training batches."""
    order = stream(seed, "compare shape").permutation(len(pool.train))[: batch * _BATCHES]
    batches = list(pool.task.batches(pool.train, order, batch))
    length = max(b.ids.shape[1] for b in batches)
    return shape_of(pool.task.base, batch, length, max(map(_predictions, batches)))


def _predictions(batch: Batch) -> int:
    counted = batch.labels[:, 1:] != IGNORED
    return int(torch.count_nonzero(counted)) if batch.labels.shape == batch.ids.shape else len(batch.ids)
