"""How a client trains."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Schedule = Literal["constant", "linear", "cosine"]


class Table(BaseModel):
    """A table that knows its keys and refuses others."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Augmentation(Table):
    """``[training.augmentation]``: text changed a little, anew in every step (Wei & Zou 2019, arXiv:1901.11196)."""

    drop: float = Field(0.0, ge=0, lt=1, description="Share of the words to leave out of what is read.")
    swap: float = Field(0.0, ge=0, lt=1, description="Share of the words to exchange with a neighbour.")
    replace: float = Field(0.0, ge=0, lt=1, description="Share of the words to replace by others of the batch.")


class Adversarial(Table):
    """``[training.adversarial]``: train on the worst small change of the embeddings as well."""

    kind: Literal["fgm", "pgd"] = Field(
        "fgm", description="fgm: one step (Miyato et al. 2017, arXiv:1605.07725); pgd: several (Madry et al. 2018)."
    )
    radius: float = Field(0.5, gt=0, description="Largest L2 norm of the change, per example.")
    steps: int = Field(3, ge=1, le=20, description="Steps of pgd.")


class Distillation(Table):
    """``[training.distillation]``: learn from a teacher's whole distribution (Hinton et al. 2015, arXiv:1503.02531)."""

    teacher: str = Field("", description="A base by name, folder or hub id; empty: the frozen base itself.")
    logits: str = Field(
        "", description="A file by `fedpeft distill`: what a teacher says of public text, instead of a live one."
    )
    weight: float = Field(0.5, gt=0, le=1, description="Share of the loss that is the teacher's.")
    temperature: float | None = Field(
        None, gt=0, description="Softens both distributions; 2 by default, with logits what the file was made with."
    )

    @property
    def softness(self) -> float:
        """The temperature of a live teacher."""
        return self.temperature or 2.0

    @field_validator("logits")
    @classmethod
    def _absolute(cls, logits: str) -> str:
        # A run's workers and whoever resumes it stand in other folders.
        return str(Path(logits).absolute()) if logits else logits


class Training(Table):
    """A scenario's ``[training]`` table; ``[personalization.training]`` has the same fields."""

    steps: int | None = Field(None, ge=1, description="Optimizer steps; give this or epochs.")
    epochs: float | None = Field(None, gt=0, description="Passes over the client's training windows.")
    max_steps: int | None = Field(None, ge=1, description="Upper limit when epochs are given.")
    batch: int = Field(8, ge=1, description="Windows per step.")
    micro_batch: int | None = Field(
        None, ge=1, description="Windows in memory at once; the gradients of a step's parts are added up."
    )
    learning_rate: float = Field(1e-3, gt=0, description="Peak AdamW learning rate.")
    head_factor: float = Field(
        10.0, gt=0, description="Times the learning rate for a classifier's head, which starts from nothing."
    )
    lora_plus: float = Field(
        1.0, ge=1, description="Times the learning rate for LoRA's B (LoRA+: Hayou et al. 2024, arXiv:2402.12354)."
    )
    schedule: Schedule = Field("constant", description="Course of the learning rate after the warm-up.")
    warmup: float = Field(0.0, ge=0, lt=1, description="Share of the steps in which the rate rises.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay.")
    clip_norm: float = Field(1.0, gt=0, description="Largest L2 norm of a gradient.")
    optimizer: Literal["adamw", "adamw8bit"] = Field(
        "adamw", description="adamw8bit keeps its state in 8 bits (Dettmers et al. 2022, arXiv:2110.02861)."
    )
    checkpointing: bool = Field(
        False, description="Compute activations again in the backward pass instead of keeping them."
    )
    chunk: int | None = Field(
        None, ge=1, description="Predictions whose logits exist at once; saves memory with a large vocabulary."
    )
    memory: str | None = Field(
        None,
        description="Bytes that a client's process may take, as in '1GB', or auto: what the machine has free. What of "
        "checkpointing, chunk and micro_batch is not set is then chosen to fit.",
    )
    autocast: bool = Field(False, description="Compute matrix products in bfloat16 over a float32 base.")
    patience: int | None = Field(
        None, ge=1, description="Stop when the loss on validation text has not fallen for so many passes."
    )
    noise: float = Field(
        0.0, ge=0, description="Scale of noise on the embeddings (NEFTune: Jain et al. 2023, arXiv:2310.05914)."
    )
    augmentation: Augmentation | None = Field(None, description="Change what is read a little, in every step anew.")
    adversarial: Adversarial | None = Field(
        None, description="Learn under the worst small change of the embeddings as well."
    )
    distillation: Distillation | None = Field(None, description="Learn a teacher's whole distribution as well.")

    @model_validator(mode="after")
    def _one_length(self) -> Training:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("exactly one of steps and epochs")
        return self

    def total_steps(self, windows: int) -> int:
        """Return how many steps a client with so many windows takes."""
        if self.steps is not None:
            return self.steps
        steps = max(1, round(self.steps_per_pass(windows) * (self.epochs or 0.0)))
        return min(steps, self.max_steps) if self.max_steps else steps

    def steps_per_pass(self, windows: int) -> int:
        """Return how many steps read every window once."""
        return math.ceil(windows / self.batch)

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
