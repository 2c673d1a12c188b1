"""Text augmentation on token ids: what is read changes a little, what is predicted does not.

Dropped words become the padding or unknown piece rather than vanish, so that targets keep their places.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fedpeft.tasks import Batch
from fedpeft.training.config import Augmentation


def augment(batch: Batch, free: Tensor, wanted: Augmentation, blank: int, rng: np.random.Generator) -> Batch:
    """Return a batch with some of its words dropped, swapped or replaced.

    Parameters
    ----------
    batch : Batch
    free : Tensor of bool, shape (b, t)
        Positions that may change.
    wanted : Augmentation
    blank : int
        The piece that stands for a dropped word.
    rng : numpy Generator
    """
    ids = batch.ids.clone()
    places = free.numpy()
    if wanted.swap:
        _swap(ids, places, wanted.swap, rng)
    if wanted.replace and places.any():
        chosen = torch.from_numpy(places & (rng.random(places.shape) < wanted.replace))
        ids[chosen] = torch.from_numpy(rng.choice(batch.ids.numpy()[places], int(chosen.sum())))
    if wanted.drop:
        ids[torch.from_numpy(places & (rng.random(places.shape) < wanted.drop))] = blank
    return batch.with_ids(ids)


def _swap(ids: Tensor, places: np.ndarray, share: float, rng: np.random.Generator) -> None:
    """Exchange neighbours. Pairs begin at even or at odd places of a row, so that no word moves twice."""
    rows, width = places.shape
    begins = (np.arange(width - 1) + rng.integers(0, 2, (rows, 1))) % 2 == 0
    pairs = begins & places[:, :-1] & places[:, 1:] & (rng.random((rows, width - 1)) < share)
    found, columns = np.nonzero(pairs)
    left = ids[found, columns].clone()
    ids[found, columns] = ids[found, columns + 1]
    ids[found, columns + 1] = left
