"""VeRA (Kopiczko et al. 2023, arXiv:2310.11454): one pair of frozen random matrices for all, through peft.

    h = W x + b ⊙ B (d ⊙ A x),   A: [r, in], B: [out, r] random and frozen,  d: [r] = 0.1,  b: [out] zero

A and B are as large as the largest target and cut to size for the others. They come from a seed, are never sent, and
are part of the schema's digest. The change is bilinear in b and d; with d frozen it is linear, and the mean exact.
"""

from __future__ import annotations

import warnings
from typing import ClassVar, Literal

import torch
from peft import VeraConfig
from pydantic import Field
from transformers import PreTrainedModel

from fedpeft.adapters.schema import Schema, Vector
from fedpeft.methods.attachment import Attachment
from fedpeft.methods.layout import require_targets
from fedpeft.methods.method import Algebra, Method, register
from fedpeft.methods.peft_method import PeftAttachment, PeftMethod, configurations
from fedpeft.methods.shares import outer_share


@register
class Vera(PeftMethod):
    """Two trained vectors per matrix around frozen random projections."""

    name: ClassVar[str] = "vera"
    algebra: ClassVar[Algebra] = Algebra.MULTILINEAR
    mergeable: ClassVar[bool] = True
    rate: ClassVar[float] = 1e-2
    equation: ClassVar[str] = "h = W x + b ⊙ B (d ⊙ A x), A and B frozen"
    source: ClassVar[str] = "Kopiczko et al. 2023, arXiv:2310.11454"
    sends: ClassVar[str] = "b and d: out + r per matrix; out alone with train_d = false"
    limits: ClassVar[str] = "Everyone needs the same A and B; the mean is exact with train_d = false only."

    rank: int = Field(256, ge=1, le=8192, description="Rows of A; they cost r numbers per matrix, so many are cheap.")
    initial_d: float = Field(0.1, gt=0, description="What d starts at.")
    train_d: bool = Field(True, description="Train d as well; without it the change is linear in what is sent.")
    targets: Literal["all-linear"] | list[str] = Field(
        "all-linear", description="Names of the linear modules to adapt, or all of them."
    )

    @property
    def averaging(self) -> Algebra:
        """Linear while d stands still."""
        return self.algebra if self.train_d else Algebra.LINEAR

    def peft_config(self, model: PreTrainedModel) -> VeraConfig:
        """Return peft's VeRA configuration, with a seed drawn for A and B."""
        others = [c for c in configurations(model) if isinstance(c, VeraConfig)]
        # Slots on one model share A and B.
        key = others[0].projection_prng_key if others else int(torch.randint(2**31, ()))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that A and B are not saved: the key makes them again
            return VeraConfig(
                r=self.rank,
                target_modules=require_targets(model, self.targets),
                projection_prng_key=key,
                save_projection=False,
                d_initial=self.initial_d,
            )

    def attach(self, model: PreTrainedModel, slot: str) -> Attachment:
        """Inject the layers, d frozen or not."""
        return PeftAttachment(
            model, self.peft_config(model), slot, keep=lambda name: self.train_d or "vera_lambda_d" not in name
        )

    def private(self, rank: int) -> Method | None:
        """Return the same, with its own b and d over the same A and B: the changes add up."""
        return self

    def share(self, schema: Schema, start: Vector, trained: Vector, share: float) -> Vector:
        """Scale b alone: the change is linear in it."""
        return outer_share(schema, start, trained, share, lambda name: "vera_lambda_b" in name)
