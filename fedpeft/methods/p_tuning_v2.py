"""P-tuning v2 (Liu et al. 2022, arXiv:2110.07602): trained keys and values in every layer, as they are.

    o_l = softmax(Q [P_l^K; K]ᵀ / √d) [P_l^V; V],   P ~ N(0, σ²)

Sends 2 k (key-value width) numbers per layer. Attention sees each layer's k pairs as a set: only a common start tells
which pair is which on another client.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from transformers import PreTrainedModel

from fedpeft.methods.attachment import Attachment
from fedpeft.methods.method import Algebra, Method, register
from fedpeft.methods.prefix import Prefixes, prefix_width
from fedpeft.methods.prompt_tuning import require_length
from fedpeft.methods.prompts import Vectors


@register
class PTuningV2(Method):
    """Trained keys and values in every layer."""

    name: ClassVar[str] = "p_tuning_v2"
    algebra: ClassVar[Algebra] = Algebra.SET
    mergeable: ClassVar[bool] = False
    checkpointing: ClassVar[bool] = False
    equation: ClassVar[str] = "o = softmax(Q [P_K; K]ᵀ/√d) [P_V; V] in every layer"
    source: ClassVar[str] = "Liu et al. 2022, arXiv:2110.07602"
    sends: ClassVar[str] = "P_K and P_V: 2 k (key-value width) per layer"
    limits: ClassVar[str] = "No gradient checkpointing. Changes the base's answers from the start."

    length: int = Field(16, ge=1, le=1024, description="Keys and values k in every layer.")

    def attach(self, model: PreTrainedModel, slot: str) -> Attachment:
        """Put the keys and values into the model's layers."""
        require_length(model, self.length)
        return Prefixes(model, Vectors(torch.randn(self.length, prefix_width(model))))
