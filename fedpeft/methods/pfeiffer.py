"""Pfeiffer adapters: one bottleneck per layer, after the feed-forward block; half of Houlsby's.

y + U f(D y + a) + b,   D: [m, d] random,  U: [d, m] zero       (Pfeiffer et al. 2021, arXiv:2005.00247)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from fedpeft.methods.bottleneck import Bottleneck, BottleneckMethod
from fedpeft.methods.hooks import Placed
from fedpeft.methods.layout import Layout
from fedpeft.methods.method import register


@register
class Pfeiffer(BottleneckMethod):
    """Bottleneck adapters after the feed-forward block."""

    name: ClassVar[str] = "pfeiffer"
    equation: ClassVar[str] = "y + U f(D y + a) + b, after the feed-forward block"
    source: ClassVar[str] = "Pfeiffer et al. 2021, arXiv:2005.00247"
    sends: ClassVar[str] = "D, a, U, b: 2 d m + m + d per layer"
    limits: ClassVar[str] = "Cannot be merged: it costs time at inference. The mean is right near a common start only."

    def places(self, found: Layout) -> Iterator[Placed]:
        """Yield one adapter per layer."""
        for layer in found.layers:
            module = Bottleneck(found.hidden, self.size, self.activation)
            name = f"layers.{layer.number}.feed_forward"
            yield Placed(name, module, layer.feed_forward_out, "serial", found.hidden)
