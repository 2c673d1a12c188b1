"""Full fine-tuning: all of the base's own parameters are trained and sent; what every method is compared with.

W <- W + Δ,   for every parameter W, tied ones once    (FedAvg: McMahan et al. 2017, arXiv:1602.05629)
"""

from __future__ import annotations

from typing import ClassVar

from transformers import PreTrainedModel

from fedpeft.methods.attachment import Attachment
from fedpeft.methods.lora import Lora
from fedpeft.methods.method import Algebra, Method, register
from fedpeft.methods.own_parameters import OwnParameters


@register
class Full(Method):
    """All parameters of the base."""

    name: ClassVar[str] = "full"
    algebra: ClassVar[Algebra] = Algebra.LINEAR
    mergeable: ClassVar[bool] = True
    rate: ClassVar[float] = 1e-4
    equation: ClassVar[str] = "W + Δ for every parameter"
    source: ClassVar[str] = "McMahan et al. 2017, arXiv:1602.05629"
    sends: ClassVar[str] = "every parameter of the base and its head"
    limits: ClassVar[str] = "Needs base.dtype float32 and a copy of the base. An adapter of it is a whole model."

    def attach(self, model: PreTrainedModel, slot: str) -> Attachment:
        """Take the model's parameters."""
        return OwnParameters(model, [name for name, _ in model.named_parameters()], self.saved())

    def private(self, rank: int) -> Method | None:
        """Return a LoRA: a person's own model would be as large as the base."""
        return Lora(rank=rank, alpha=2.0 * rank)
