"""Houlsby adapters: a bottleneck after the attention and one after the feed-forward block of every layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from fedpeft.methods.bottleneck import Bottleneck, BottleneckMethod
from fedpeft.methods.hooks import Placed
from fedpeft.methods.layout import Layout
from fedpeft.methods.method import register


@register
class Houlsby(BottleneckMethod):
    """Bottleneck adapters after attention and feed-forward."""

    name: ClassVar[str] = "houlsby"
    equation: ClassVar[str] = "y + U f(D y + a) + b, after attention and feed-forward"
    source: ClassVar[str] = "Houlsby et al. 2019, arXiv:1902.00751"
    sends: ClassVar[str] = "D, a, U, b: 2 (2 d m + m + d) per layer"
    limits: ClassVar[str] = "Cannot be merged: it costs time at inference. The mean is right near a common start only."

    def places(self, found: Layout) -> Iterator[Placed]:
        """Yield two adapters per layer."""
        for layer in found.layers:
            for part, at in (("attention", layer.attention), ("feed_forward", layer.feed_forward_out)):
                module = Bottleneck(found.hidden, self.size, self.activation)
                yield Placed(f"layers.{layer.number}.{part}", module, at, "serial", found.hidden)
