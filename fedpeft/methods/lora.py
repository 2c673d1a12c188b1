"""LoRA (Hu et al. 2021, arXiv:2106.09685), through peft.

    h = W x + s B A x,   A: [r, in] random,  B: [out, r] zero,   s = alpha / r   (rsLoRA: alpha / sqrt r)

Sends A and B, ``r (in + out)`` numbers per adapted matrix. The mean of A and B is not the mean of B A
(algebra: multilinear); a common seeded start keeps the difference small.
"""

from __future__ import annotations

from typing import ClassVar, Literal, cast

from peft import LoraConfig
from pydantic import Field

from fedpeft.methods.method import Algebra, Method, register


@register
class Lora(Method):
    """Low-rank changes to linear layers."""

    name: ClassVar[str] = "lora"
    algebra: ClassVar[Algebra] = Algebra.MULTILINEAR
    mergeable: ClassVar[bool] = True

    rank: int = Field(8, ge=1, le=256, description="Rank r of every adapted matrix.")
    alpha: float = Field(16.0, gt=0, description="Scaling numerator; the change is multiplied by alpha / r.")
    targets: Literal["all-linear"] | list[str] = Field(
        "all-linear", description="Names of the linear modules to adapt, or all of them."
    )
    rslora: bool = Field(False, description="Scale by alpha / sqrt(r) instead (Kalajdzievski 2023, arXiv:2312.03732).")

    def peft_config(self) -> LoraConfig:
        """Return peft's LoRA configuration for a causal language model."""
        return LoraConfig(
            task_type="CAUSAL_LM",
            r=self.rank,
            lora_alpha=cast("int", self.alpha),  # any number works; the annotation is too narrow
            target_modules=self.targets,
            use_rslora=self.rslora,
        )
