"""QLoRA (Dettmers et al. 2023, arXiv:2305.14314): LoRA over a base whose weights are held in 4 bits.

    h = dequantize(NF4(W)) x + s B A x

The scales of NF4's blocks are quantized too, and sums are formed in the base's own precision. The adapter learns to
make up for the rounding, and belongs to the base that was rounded so. With ``base.precision = "int8"`` the base is held
in 8 bits instead.
"""

from __future__ import annotations

from typing import ClassVar

from transformers import PreTrainedModel

from fedpeft.errors import ScenarioError
from fedpeft.methods.attachment import Attachment
from fedpeft.methods.lora import Lora
from fedpeft.methods.method import Method, register


@register
class QLora(Lora):
    """LoRA over a base in 4 bits."""

    name: ClassVar[str] = "qlora"
    precision: ClassVar[str] = "nf4"
    equation: ClassVar[str] = "h = dequantize(NF4(W)) x + s B A x"
    source: ClassVar[str] = "Dettmers et al. 2023, arXiv:2305.14314"
    limits: ClassVar[str] = (
        "As lora. Belongs to the quantized base: merge into its dequantized weights, not the published ones."
    )

    def over(self, precision: str) -> Method:
        """Return lora over a base that is not quantized, as devices with more memory hold it."""
        if precision != "full":
            return self
        lora = Lora(**self.model_dump())
        lora._beside = self._beside
        return lora

    def attach(self, model: PreTrainedModel, slot: str) -> Attachment:
        """Inject the layers into a quantized base.

        Raises
        ------
        ScenarioError
            When the base is not quantized: that would be lora.
        """
        if not any(getattr(model, mark, False) for mark in ("is_loaded_in_4bit", "is_loaded_in_8bit")):
            raise ScenarioError("base.precision", "full", "nf4 or int8", "leave it out, or use lora")
        return super().attach(model, slot)
