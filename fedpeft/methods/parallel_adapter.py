"""Parallel adapters: a bottleneck beside the feed-forward block, reading what the block reads.

y + s (U f(D x + a) + b),   y = FFN(x)                          (He et al. 2022, arXiv:2110.04366)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field

from fedpeft.methods.bottleneck import Bottleneck, BottleneckMethod
from fedpeft.methods.hooks import Placed
from fedpeft.methods.layout import Layout
from fedpeft.methods.method import register


@register
class ParallelAdapter(BottleneckMethod):
    """Bottleneck adapters beside the feed-forward block."""

    name: ClassVar[str] = "parallel_adapter"
    equation: ClassVar[str] = "y + s (U f(D x + a) + b), y = FFN(x)"
    source: ClassVar[str] = "He et al. 2022, arXiv:2110.04366"
    sends: ClassVar[str] = "D, a, U, b: 2 d m + m + d per layer"
    limits: ClassVar[str] = "Cannot be merged: it costs time at inference. The mean is right near a common start only."

    scale: float = Field(4.0, gt=0, le=100, description="Factor s before the adapter's result.")

    def places(self, found: Layout) -> Iterator[Placed]:
        """Yield one adapter per layer."""
        for layer in found.layers:
            module = Bottleneck(found.hidden, self.size, self.activation, self.scale)
            name = f"layers.{layer.number}.feed_forward"
            yield Placed(name, module, layer.feed_forward_out, "parallel", found.hidden, tap=layer.feed_forward_in)
