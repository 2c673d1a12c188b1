"""How a client trains."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Schedule = Literal["constant", "linear", "cosine"]


class Training(BaseModel):
    """A scenario's ``[training]`` table; ``[personalization.training]`` has the same fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: int | None = Field(None, ge=1, description="Optimizer steps; give this or epochs.")
    epochs: float | None = Field(None, gt=0, description="Passes over the client's training windows.")
    max_steps: int | None = Field(None, ge=1, description="Upper limit when epochs are given.")
    batch: int = Field(8, ge=1, description="Windows per step.")
    learning_rate: float = Field(1e-3, gt=0, description="Peak AdamW learning rate.")
    schedule: Schedule = Field("constant", description="Course of the learning rate after the warm-up.")
    warmup: float = Field(0.0, ge=0, lt=1, description="Share of the steps in which the rate rises.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay.")
    clip_norm: float = Field(1.0, gt=0, description="Largest L2 norm of a gradient.")

    @model_validator(mode="after")
    def _one_length(self) -> Training:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("exactly one of steps and epochs")
        return self

    def total_steps(self, windows: int) -> int:
        """Return how many steps a client with so many windows takes."""
        if self.steps is not None:
            return self.steps
        per_epoch = math.ceil(windows / self.batch)
        steps = max(1, round(per_epoch * (self.epochs or 0.0)))
        return min(steps, self.max_steps) if self.max_steps else steps

    def rate(self, step: int, total: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        rise = round(total * self.warmup)
        if step < rise:
            return self.learning_rate * (step + 1) / rise
        return self.learning_rate * fade(self.schedule, (step - rise) / max(1, total - rise))

    def faded(self, schedule: Schedule, done: float) -> Training:
        """Return the same training with the learning rate it has when ``done`` of a run is over."""
        return self.model_copy(update={"learning_rate": self.learning_rate * fade(schedule, done)})


def fade(schedule: Schedule, done: float) -> float:
    """Return the factor of a schedule after a share ``done`` in [0, 1) of its course."""
    if schedule == "constant":
        return 1.0
    return 1.0 - done if schedule == "linear" else 0.5 + 0.5 * math.cos(math.pi * done)
