"""How long to wait after a failure, so that a thousand devices do not come back in the same second.

Full jitter (Brooker 2015, "Exponential Backoff And Jitter"): the n-th wait is uniform in [0, min(most, first · 2ⁿ)].
"""

from __future__ import annotations

from random import SystemRandom

_FARTHEST = 30  # 2^30 seconds is beyond every cap


class Backoff:
    """Waits of one party.

    Parameters
    ----------
    first, most : float
        Seconds: bound of the first wait, and of any.
    """

    def __init__(self, first: float, most: float) -> None:
        self._first, self._most, self._failures = first, most, 0
        self._random = SystemRandom()

    @property
    def failures(self) -> int:
        """How many there were in a row."""
        return self._failures

    def next(self) -> float:
        """Return how long to wait now that it failed again."""
        bound = min(self._most, self._first * 2 ** min(self._failures, _FARTHEST))
        self._failures += 1
        return self._random.uniform(0.0, bound)

    def reset(self) -> None:
        """Begin again: it worked."""
        self._failures = 0


class Pace:
    """Waits between questions that mostly have no answer: short after one that had, longer and longer after.

    Parameters
    ----------
    first, most : float
        Seconds: the wait after an answer, and the longest.
    growth : float
        Each wait is so many times the one before; an answer is then late by that share of the silence before it.
    """

    def __init__(self, first: float, most: float, growth: float = 1.3) -> None:
        self._first, self._most, self._growth = first, most, growth
        self._now = first

    def next(self) -> float:
        """Return how long to wait now that there was no answer."""
        wait, self._now = self._now, min(self._most, self._now * self._growth)
        return wait

    def reset(self) -> None:
        """Begin again: there was an answer."""
        self._now = self._first
