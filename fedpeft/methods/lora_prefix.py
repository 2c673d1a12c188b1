"""LoRA and prefixes together: weights that adapt, and keys and values that every layer can look up.

    o_l = softmax(Q [P_l^K; K]ᵀ / √d) [P_l^V; V],   Q, K, V from W + s B A

Sends A, B and P. The rules of both hold: factor by factor the mean is right, between the factors it is not, and the
pairs of P are a set (:mod:`~fedpeft.methods.lora`, :mod:`~fedpeft.methods.p_tuning_v2`).
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from fedpeft.methods.hybrid import Hybrid
from fedpeft.methods.lora import Lora
from fedpeft.methods.method import Algebra, register
from fedpeft.methods.p_tuning_v2 import PTuningV2


@register
class LoraPrefix(Hybrid):
    """LoRA and prefixes."""

    name: ClassVar[str] = "lora_prefix"
    algebra: ClassVar[Algebra] = Algebra.MULTILINEAR
    mergeable: ClassVar[bool] = False
    precedes: ClassVar[bool] = True
    checkpointing: ClassVar[bool] = False
    equation: ClassVar[str] = "o = softmax(Q [P_K; K]ᵀ/√d) [P_V; V], Q, K, V from W + s B A"
    source: ClassVar[str] = "Hu et al. 2021, arXiv:2106.09685; Liu et al. 2022, arXiv:2110.07602"
    sends: ClassVar[str] = "A, B, P_K and P_V: r (in + out) per matrix and 2 k (key-value width) per layer"
    limits: ClassVar[str] = "Those of both parts: two factors whose mean is not exact, and a set. No checkpointing."

    lora: Lora = Field(Lora(), description="The LoRA part, with lora's keys.")
    prefix: PTuningV2 = Field(PTuningV2(), description="The prefixes, with p_tuning_v2's keys.")
