"""Which token comes next, given the logits z of all and the tokens read so far.

In this order, as Hugging Face's transformers does it:

    repetition penalty p    z_i <- z_i / p where z_i > 0, else z_i p, for every token i read before
    temperature t           z <- z / t;  t = 0 takes the likeliest token and ends here
    top-k                   only tokens no less likely than the k-th
    top-p                   of those, the fewest likeliest whose probabilities sum to p or more
    draw                    with probability softmax(z)
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from fedpeft.errors import FedpeftError

_PENALTY = 100.0

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Sampling:
    """How to choose.

    Parameters
    ----------
    temperature : float
        0 takes the likeliest; 1 draws from the base's own distribution.
    top_k : int
        Draw among this many likeliest; 0 means all.
    top_p : float
        Draw among the likeliest that together have at least this probability; 1 means all.
    repetition_penalty : float
        Above 1, tokens that were read before are less likely; 1 leaves them.

    Raises
    ------
    FedpeftError
        When one of them has no meaning.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < inf:
            raise FedpeftError("temperature", self.temperature, "0 (the likeliest) or more")
        if self.top_k < 0:
            raise FedpeftError("top_k", self.top_k, "0 (all) or more")
        if not 0 < self.top_p <= 1:
            raise FedpeftError("top_p", self.top_p, "more than 0 and at most 1 (all)")
        if not 1 / _PENALTY <= self.repetition_penalty <= _PENALTY:
            expected = f"{1 / _PENALTY:g} to {_PENALTY:g}; 1 leaves repetitions alone"
            raise FedpeftError("repetition_penalty", self.repetition_penalty, expected)

    def choose(self, logits: NDArray[np.float32], random: np.random.Generator, read: Collection[int] = ()) -> int:
        """Choose a token.

        Parameters
        ----------
        logits : ndarray of float32, shape (vocabulary,)
        random : numpy.random.Generator
        read : collection of int
            The tokens so far, prompt included; only a repetition penalty looks at them.

        Raises
        ------
        FedpeftError
            When a score is none: NaN or infinite.
        """
        if not np.isfinite(logits).all():
            raise FedpeftError("scores", "NaN or infinity", "finite numbers", "the adapter's numbers are too large")
        scores = logits.astype(np.float64)
        if self.repetition_penalty != 1:
            _penalize(scores, read, self.repetition_penalty)
        if self.temperature == 0:
            return int(scores.argmax())
        # Below the best, so that no temperature, however low, makes infinities of the likeliest.
        with np.errstate(over="ignore"):
            scores = (scores - scores.max()) / self.temperature
        kept = np.arange(len(scores))
        if 0 < self.top_k < len(scores):
            kept = np.flatnonzero(scores >= np.partition(scores, -self.top_k)[-self.top_k])
        if self.top_p < 1:
            kept = kept[_nucleus(scores[kept], self.top_p)]
        return int(random.choice(kept, p=softmax(scores[kept])))


GREEDY = Sampling()


def softmax(scores: NDArray[np.floating]) -> Scores:
    """Return probabilities along the last axis.

    Parameters
    ----------
    scores : ndarray of float, shape (..., n)

    Returns
    -------
    ndarray of float64, shape (..., n)
    """
    weights = np.exp(scores.astype(np.float64) - scores.max(-1, keepdims=True))
    return np.asarray(weights / weights.sum(-1, keepdims=True))


def _penalize(scores: Scores, read: Collection[int], penalty: float) -> None:
    ids = np.unique(np.fromiter(read, np.int64, len(read)))
    ids = ids[ids < len(scores)]  # an adapter's soft prompt has ids beyond the vocabulary
    before = scores[ids]
    scores[ids] = np.where(before > 0, before / penalty, before * penalty)


def _nucleus(scores: Scores, probability: float) -> NDArray[np.intp]:
    """Return where the likeliest lie whose probabilities first sum to ``probability``."""
    ascending = np.argsort(scores, kind="stable")
    # Summed from the unlikely end, as the reference does it: what stays is never empty.
    unlikely = softmax(scores[ascending]).cumsum() <= 1 - probability
    unlikely[-1] = False
    return ascending[~unlikely]
