"""LoRA (Hu et al. 2021, arXiv:2106.09685), through peft.

    h = W x + s B A x,   A: [r, in] random,  B: [out, r] zero,   s = alpha / r   (rsLoRA: alpha / sqrt r)

DoRA (Liu et al. 2024, arXiv:2402.09353) learns the length of each row of the changed weight as well:

    h = m (W + s B A) x / ||W + s B A||_row
"""

from __future__ import annotations

from typing import ClassVar, Literal, cast

import numpy as np
from peft import LoraConfig
from pydantic import Field
from transformers import PreTrainedModel

from fedpeft.adapters.schema import Schema, Vector
from fedpeft.methods.layout import require_rank, require_targets
from fedpeft.methods.method import Algebra, Method, register
from fedpeft.methods.peft_method import PeftMethod


@register
class Lora(PeftMethod):
    """Low-rank changes to linear layers."""

    name: ClassVar[str] = "lora"
    algebra: ClassVar[Algebra] = Algebra.MULTILINEAR
    mergeable: ClassVar[bool] = True
    equation: ClassVar[str] = "h = W x + s B A x, s = α/r (rsLoRA: α/√r)"
    source: ClassVar[str] = "Hu et al. 2021, arXiv:2106.09685"
    sends: ClassVar[str] = "A and B: r (in + out) per matrix"
    limits: ClassVar[str] = "The mean of A and B is not the mean of B A: start alike, or use partition ffa or alternate."

    rank: int = Field(8, ge=1, le=4096, description="Rank r of every adapted matrix.")
    alpha: float = Field(16.0, gt=0, description="Scaling numerator; the change is multiplied by alpha / r.")
    targets: Literal["all-linear"] | list[str] = Field(
        "all-linear", description="Names of the linear modules to adapt, or all of them."
    )
    rslora: bool = Field(False, description="Scale by alpha / sqrt(r) instead (Kalajdzievski 2023, arXiv:2312.03732).")
    dora: bool = Field(False, description="Learn the length of each row too (DoRA, Liu et al. 2024, arXiv:2402.09353).")
    rank_pattern: dict[str, int] = Field({}, description="Other ranks by module name, such as {v_proj = 16}.")
    alpha_pattern: dict[str, float] = Field({}, description="Other alphas by module name.")

    def peft_config(self, model: PreTrainedModel) -> LoraConfig:
        """Return peft's LoRA configuration."""
        targets = require_targets(model, self.targets)
        for pattern in ("rank_pattern", "alpha_pattern"):
            if getattr(self, pattern):
                require_targets(model, list(getattr(self, pattern)), f"method.{pattern}")
        require_rank(model, max([self.rank, *self.rank_pattern.values()]), targets)
        return LoraConfig(
            r=self.rank,
            lora_alpha=cast("int", self.alpha),  # any number works; the annotation is too narrow
            target_modules=targets,
            use_rslora=self.rslora,
            use_dora=self.dora,
            rank_pattern=dict(self.rank_pattern),
            alpha_pattern=cast("dict[str, int]", dict(self.alpha_pattern)),
        )

    def private(self, rank: int) -> Method | None:
        """Return the same with its own rank and the same scaling; DoRA's lengths do not add up."""
        if self.dora or self.rank_pattern or self.alpha_pattern:
            return None
        ratio = rank / self.rank
        return self.model_copy(update={"rank": rank, "alpha": self.alpha * (ratio**0.5 if self.rslora else ratio)})

    def share(self, schema: Schema, start: Vector, trained: Vector, share: float) -> Vector:
        """Scale B alone: the change is linear in it, and A may keep what it has learnt."""
        if self.dora:
            return super().share(schema, start, trained, share)
        before = np.where(schema.mask(lambda name: "lora_B" in name), start, trained)
        return super().share(schema, before, trained, share)
