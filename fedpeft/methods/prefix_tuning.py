"""Prefix tuning (Li & Liang 2021, arXiv:2101.00190): keys and values in every layer, computed by a small network.

    P_j = W' tanh(W E_j + b) + b',   o_l = softmax(Q [P_l^K; K]ᵀ / √d) [P_l^V; V],   E: [k, d]

Sends E, W, b, W', b'. Used, it is a prefix of plain keys and values, and ``Attached.folded`` gives that one to peft.
Without the projection the keys and values are trained themselves, as in P-tuning v2, and their algebra is a set's.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from transformers import PreTrainedModel

from fedpeft.methods.attachment import Attachment
from fedpeft.methods.layout import layout
from fedpeft.methods.method import Algebra, Method, register
from fedpeft.methods.p_tuning_v2 import starting_prefix
from fedpeft.methods.prefix import Prefixes, prefix_width
from fedpeft.methods.prompt_tuning import require_length
from fedpeft.methods.prompts import Vectors
from fedpeft.methods.reparameterised import Projection


@register
class PrefixTuning(Method):
    """Keys and values in every layer, computed by a small network."""

    name: ClassVar[str] = "prefix_tuning"
    algebra: ClassVar[Algebra] = Algebra.NETWORK
    mergeable: ClassVar[bool] = False
    precedes: ClassVar[bool] = True
    checkpointing: ClassVar[bool] = False
    equation: ClassVar[str] = "o = softmax(Q [P_K; K]ᵀ/√d) [P_V; V], P = W' tanh(W E + b) + b'"
    source: ClassVar[str] = "Li & Liang 2021, arXiv:2101.00190"
    sends: ClassVar[str] = "E, W, W': k v + v w + w + (w + 1) 2 L v, v the key-value width"
    limits: ClassVar[str] = "No gradient checkpointing; sends more than the prefix it amounts to."

    length: int = Field(16, ge=1, le=1024, description="Keys and values k in every layer.")
    projection: int | None = Field(
        64, ge=1, le=4096, description="Width w of the network; none: the keys and values are trained themselves."
    )

    @property
    def averaging(self) -> Algebra:
        """A set's where the keys and values are trained themselves."""
        return Algebra.SET if self.projection is None else self.algebra

    def attach(self, model: PreTrainedModel, slot: str) -> Attachment:
        """Put the computed keys and values into the model's layers."""
        require_length(model, self.length)
        found, numbers = layout(model), prefix_width(model)
        if self.projection is None:
            return Prefixes(model, Vectors(starting_prefix(model, self.length)))
        width = found.key_value_heads * found.head_size
        return Prefixes(model, Projection(self.length, width, self.projection, numbers), self.saved())
