"""LoRA and bottleneck adapters at once: low-rank changes of the matrices, and a Pfeiffer adapter after every block.

    h = W x + s B A x  in the linear layers,   y + U f(D y + a) + b  after the feed-forward block

Two of the three parts of UniPELT (Mao et al. 2022, arXiv:2110.07577) without gates; He et al. 2022
(arXiv:2110.04366) study such mixtures. The adapter reads what LoRA has changed.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from fedpeft.methods.hybrid import Hybrid
from fedpeft.methods.lora import Lora
from fedpeft.methods.method import Algebra, register
from fedpeft.methods.pfeiffer import Pfeiffer


@register
class AdapterLora(Hybrid):
    """LoRA in the layers and an adapter after each."""

    name: ClassVar[str] = "adapter_lora"
    algebra: ClassVar[Algebra] = Algebra.NETWORK
    mergeable: ClassVar[bool] = False
    rate: ClassVar[float] = 3e-3
    equation: ClassVar[str] = "h = W x + s B A x, and y + U f(D y + a) + b after the feed-forward block"
    source: ClassVar[str] = "He et al. 2022, arXiv:2110.04366"
    sends: ClassVar[str] = "A and B: r (in + out) per matrix; D, a, U, b: 2 d m + m + d per layer"
    limits: ClassVar[str] = "Its LoRA could be merged, its adapter cannot. The mean is right near a common start only."

    lora: Lora = Field(Lora(), description="The LoRA part, with lora's keys.")
    adapter: Pfeiffer = Field(Pfeiffer(), description="The adapters, with pfeiffer's keys.")
