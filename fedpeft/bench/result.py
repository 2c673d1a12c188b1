"""What a benchmark returns, and which there are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

BENCHES = {
    "roundtrip": "Seconds per client-round in process, against Flower's Ray simulation of the same apps.",
    "ring": "Error of summing in ring integers, against summing in float64.",
    "methods": "What every PEFT method trains, weighs, takes and reaches; and switching adapters, against peft.",
    "secagg": "Masks, sums, bytes and altered messages of secure aggregation, against Flower's SecAgg+ functions.",
    "serve": "Sixty-four people with adapters of their own on one service, against one text at a time.",
    "base": "Perplexity of the builtin base on the clients' test text, against a unigram model.",
}
"""Name of the module in ``fedpeft.bench`` -> what it measures."""


@dataclass(frozen=True)
class Result:
    """One benchmark's outcome.

    Parameters
    ----------
    figures : dict
        Ours; ratios above 1 are in our favour.
    rival : dict
        The other's, measured in the same run, with its ``name``.
    """

    figures: dict[str, Any]
    rival: dict[str, Any] = field(default_factory=dict)
