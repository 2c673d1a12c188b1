"""Which token comes next, given the logits of all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpeft.errors import FedpeftError


@dataclass(frozen=True)
class Sampling:
    """How to choose.

    Parameters
    ----------
    temperature : float
        0 takes the likeliest; 1 draws from the base's own distribution.
    top_k : int
        Draw among this many likeliest; 0 means all.

    Raises
    ------
    FedpeftError
        When either is negative.
    """

    temperature: float = 0.0
    top_k: int = 0

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise FedpeftError("temperature", self.temperature, "0 (the likeliest) or more")
        if self.top_k < 0:
            raise FedpeftError("top_k", self.top_k, "0 (all) or more")

    def choose(self, logits: NDArray[np.float32], random: np.random.Generator) -> int:
        """Choose a token.

        Parameters
        ----------
        logits : ndarray of float32, shape (vocabulary,)
        random : numpy.random.Generator
        """
        if self.temperature == 0:
            return int(logits.argmax())
        scores = logits.astype(np.float64)
        if 0 < self.top_k < len(scores):
            scores[np.argpartition(scores, -self.top_k)[: -self.top_k]] = -np.inf
        return int(random.choice(len(scores), p=softmax(scores / self.temperature)))


GREEDY = Sampling()


def softmax(scores: NDArray[np.floating]) -> NDArray[np.float64]:
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
