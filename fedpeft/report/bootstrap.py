"""Percentile bootstrap over people (Efron 1979): how far a mean would move had other people taken part.

Draw n people with replacement, take the mean, 2,000 times; the interval holds the middle 95 % of the means.
Whole people are drawn, so that a person's difference between two models stays paired.
"""

from __future__ import annotations

from math import isnan, nan

import numpy as np
from numpy.typing import NDArray

RESAMPLES, LEVEL, SEED = 2_000, 0.95, 20_240_229


def mean_intervals(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 95 % intervals for the means of several paired quantities.

    Parameters
    ----------
    values : ndarray, shape (people, quantities)
        At least one person. The order of people decides the last digits, so callers sort them.

    Returns
    -------
    ndarray, shape (quantities, 2)
        Lower and upper ends.
    """
    people = len(values)
    generator = np.random.default_rng(SEED)
    # One resample at a time: all of them at once would need 2,000 x people numbers.
    means = np.stack([values[generator.integers(people, size=people)].mean(axis=0) for _ in range(RESAMPLES)])
    tail = (1.0 - LEVEL) / 2.0
    ends: NDArray[np.float64] = np.quantile(means, [tail, 1.0 - tail], axis=0).T
    return ends


def mean_ends(columns: NDArray[np.float64]) -> list[dict[str, float | None]]:
    """Return each column's mean and interval: no mean of nobody, no interval from one person.

    Parameters
    ----------
    columns : ndarray, shape (people, quantities)
        NaN where a person lacks a quantity; such a column has neither.

    Returns
    -------
    list of dict
        ``mean``, ``low`` and ``high`` of each quantity; null where unknown.
    """
    width = columns.shape[1]
    means = columns.mean(axis=0) if len(columns) else [nan] * width
    ends = mean_intervals(columns) if len(columns) > 1 else [(nan, nan)] * width
    return [
        {"mean": _known(mean), "low": _known(low), "high": _known(high)}
        for mean, (low, high) in zip(means, ends, strict=True)
    ]


def _known(value: float) -> float | None:
    return None if isnan(value) else float(value)
