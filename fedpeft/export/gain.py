"""What an adapter gains, and how much of it is left on a base that is held otherwise than it was trained on.

    gain = loss(base) - loss(base with adapter),      kept = gain there / gain where it was trained

in nats per token, on text its person wrote and nobody trained on. Both losses of a gain are of the same base: what the
base itself loses by quantization is not the adapter's. An adapter that has overfitted leaves a small difference of
large changes, and less of it is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from fedpeft.data.windows import IGNORED, Windows
from fedpeft.device.loaded import LoadedAdapter
from fedpeft.device.runtime import Runtime
from fedpeft.device.sampling import softmax
from fedpeft.errors import DataError


@dataclass(frozen=True, slots=True)
class Gain:
    """Losses of one text on one base, nats per token.

    Parameters
    ----------
    without, with_it : float
        By the bare base, and with the adapter.
    """

    without: float
    with_it: float

    @property
    def nats(self) -> float:
        """By how much the adapter predicts better; below zero where it does harm."""
        return self.without - self.with_it


def mean_gain(gains: Iterable[Gain]) -> Gain:
    """Return the mean over people, each of whom counts alike."""
    every = list(gains)
    return Gain(fmean(g.without for g in every), fmean(g.with_it for g in every))


def kept(there: Gain, trained: Gain) -> float | None:
    """Return the share of a gain that is left; None where there was none to keep."""
    return there.nats / trained.nats if trained.nats > 0 else None


def graph_gain(runtime: Runtime, adapter: LoadedAdapter, text: Windows) -> Gain:
    """Return what an adapter gains over an exported base, through onnxruntime."""
    return Gain(graph_loss(runtime, None, text), graph_loss(runtime, adapter, text))


def graph_loss(runtime: Runtime, adapter: LoadedAdapter | None, text: Windows) -> float:
    """Return the mean cross-entropy of a person's own pieces over an exported base.

    Parameters
    ----------
    runtime : Runtime
    adapter : LoadedAdapter or None
        The bare base when there is none.
    text : Windows
        One example to a row.

    Raises
    ------
    DataError
        When nothing in the text is to be predicted, or a row holds several examples: a graph would not keep them apart.
    """
    if text.positions is not None:
        raise DataError("text to score", "several examples to a row", "one", "data.packing = false")
    spent: list[float] = []
    for ids, labels in zip(text.ids, text.labels, strict=True):
        asked = np.flatnonzero(labels[1:] != IGNORED)
        if len(asked):
            chances = softmax(runtime.logits(ids[: asked[-1] + 1].tolist(), adapter))
            spent += (-np.log(chances[asked, labels[asked + 1]])).tolist()
    if not spent:
        raise DataError("text to score", "nothing to predict", "at least one piece of a person's own")
    return fmean(spent)
