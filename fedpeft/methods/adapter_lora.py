"""LoRA and bottleneck adapters at once: low-rank changes of the matrices, and a Pfeiffer adapter after every block.

    h = W x + s B A x  in the linear layers,   y + U f(D y + a) + b  after the feed-forward block

Two of the three parts of UniPELT (Mao et al. 2022, arXiv:2110.07577) without gates; He et al. 2022
(arXiv:2110.04366) study such mixtures.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from transformers import PreTrainedModel

from fedpeft.adapters.schema import Schema, Vector
from fedpeft.methods.attachment import Attachment, Joined
from fedpeft.methods.bottleneck import Activation
from fedpeft.methods.lora import Lora
from fedpeft.methods.method import Algebra, Method, register
from fedpeft.methods.pfeiffer import Pfeiffer
from fedpeft.methods.shares import outer_share


@register
class AdapterLora(Method):
    """LoRA in the layers and an adapter after each."""

    name: ClassVar[str] = "adapter_lora"
    algebra: ClassVar[Algebra] = Algebra.NETWORK
    mergeable: ClassVar[bool] = False
    equation: ClassVar[str] = "h = W x + s B A x, and y + U f(D y + a) + b after the feed-forward block"
    source: ClassVar[str] = "He et al. 2022, arXiv:2110.04366"
    sends: ClassVar[str] = "A and B: r (in + out) per matrix; D, a, U, b: 2 d m + m + d per layer"
    limits: ClassVar[str] = "Its LoRA could be merged, its adapter cannot. The mean is right near a common start only."

    rank: int = Field(8, ge=1, le=4096, description="Rank r of LoRA.")
    alpha: float = Field(16.0, gt=0, description="Scaling numerator; LoRA's change is multiplied by alpha / r.")
    targets: Literal["all-linear"] | list[str] = Field(
        "all-linear", description="Names of the linear modules that LoRA adapts, or all of them."
    )
    size: int = Field(16, ge=1, le=4096, description="Width m of the adapter's bottleneck.")
    activation: Activation = Field("relu", description="Nonlinearity f of the adapter.")

    def attach(self, model: PreTrainedModel, slot: str) -> Attachment:
        """Attach both; LoRA first, so that the adapter reads what LoRA has changed."""
        lora = Lora(rank=self.rank, alpha=self.alpha, targets=self.targets).attach(model, slot)
        adapter = Pfeiffer(size=self.size, activation=self.activation).attach(model, slot)
        return Joined([("", lora), ("", adapter)], self.saved())

    def private(self, rank: int) -> Method | None:
        """Return the same with its own rank and width and the same scaling."""
        return self.model_copy(update={"rank": rank, "alpha": self.alpha * rank / self.rank, "size": rank})

    def share(self, schema: Schema, start: Vector, trained: Vector, share: float) -> Vector:
        """Scale B, U and b alone: each place's change is linear in them."""
        return outer_share(schema, start, trained, share, lambda name: "lora_B" in name or ".up." in name)
