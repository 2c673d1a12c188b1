"""Server optimizers: the weighted mean change d_t is a pseudo-gradient (Reddi et al. 2021, arXiv:2003.00295).

    avg        x += lr d_t                                                    FedAvg  (McMahan et al. 2017)
    momentum   m = b1 m + d_t;                        x += lr m     FedAvgM (Hsu et al. 2019, arXiv:1909.06335)
    adam       m = b1 m + (1 - b1) d_t;  v = b2 v + (1 - b2) d_t^2;   x += lr m / (sqrt(v) + tau)    FedAdam

All need the sum alone, so all work under secure aggregation. As in the paper, Adam here has no bias correction.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from fedpeft.adapters.schema import Vector

State = dict[str, Vector]
"""What a rule remembers between rounds: named vectors of shape (d,), empty at the start."""


class Aggregation(BaseModel):
    """A scenario's ``[aggregation]`` table."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rule: str = Field("avg", description="avg, momentum or adam.")
    learning_rate: float = Field(1.0, gt=0, description="Server step size lr.")
    beta1: float = Field(0.9, ge=0, lt=1, description="Decay of the first moment (momentum, adam).")
    beta2: float = Field(0.99, ge=0, lt=1, description="Decay of the second moment (adam).")
    tau: float = Field(1e-3, gt=0, description="Adam's adaptivity; larger is closer to momentum.")


Step = tuple[Vector, State]


def _avg(mean: Vector, _: State, rule: Aggregation) -> Step:
    return np.float32(rule.learning_rate) * mean, {}


def _momentum(mean: Vector, state: State, rule: Aggregation) -> Step:
    first = np.float32(rule.beta1) * state.get("first", np.zeros_like(mean)) + mean
    return np.float32(rule.learning_rate) * first, {"first": first}


def _adam(mean: Vector, state: State, rule: Aggregation) -> Step:
    b1, b2 = np.float32(rule.beta1), np.float32(rule.beta2)
    first = b1 * state.get("first", np.zeros_like(mean)) + (1 - b1) * mean
    second = b2 * state.get("second", np.zeros_like(mean)) + (1 - b2) * mean * mean
    step = np.float32(rule.learning_rate) * first / (np.sqrt(second) + np.float32(rule.tau))
    return step.astype(np.float32), {"first": first, "second": second}


RULES: dict[str, Callable[[Vector, State, Aggregation], Step]] = {
    "avg": _avg,
    "momentum": _momentum,
    "adam": _adam,
}


def advance(mean: Vector, state: State, rule: Aggregation) -> Step:
    """Turn a round's mean change into the global adapter's step.

    Parameters
    ----------
    mean : ndarray of float32, shape (d,)
        Weighted mean of the clients' changes.
    state : State
        What this function returned the round before; empty at first.
    rule : Aggregation

    Returns
    -------
    step : ndarray of float32, shape (d,)
        To be added to the global adapter.
    state : State
        For the next round.
    """
    return RULES[rule.rule](mean, state, rule)
