"""UniPELT: LoRA, prefix and adapter together, each behind a gate that reads what the part reads.

    q, v:           h = W x + g(x) s B A x
    attention:      a_t + g(q_t) Σ_n softmax_n(q_t · k_n / √d_h) v_n,   (k_n, v_n) the prefix of the head
    feed-forward:   y + g(y) (U f(D y + a) + b)
    gates:          g(z) = σ(w · z + c)

Mao et al. 2022, arXiv:2110.07577. The paper averages a gate over the text, which would show a causal model the future,
and scales the prefix's keys and values with it. Here each token has its own gate; for that the prefix has a softmax
of its own, as He et al. 2022 (arXiv:2110.04366, equation 8) write prefixes and LLaMA-Adapter (Zhang et al. 2023,
arXiv:2303.16199) uses them. So v_n can start at zero, and nothing is kept in a cache.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from fedpeft.adapters.schema import Schema, Vector
from fedpeft.errors import ScenarioError
from fedpeft.methods.attachment import Attachment
from fedpeft.methods.bottleneck import Activation, Bottleneck, require_size
from fedpeft.methods.hooks import Hooked, Placed
from fedpeft.methods.layout import Layout, features, layout
from fedpeft.methods.method import Algebra, Method, register
from fedpeft.methods.shared_lora import LowRank
from fedpeft.methods.shares import outer_share


@register
class UniPelt(Method):
    """Gated LoRA, prefix and adapter."""

    name: ClassVar[str] = "unipelt"
    algebra: ClassVar[Algebra] = Algebra.NETWORK
    mergeable: ClassVar[bool] = False
    rate: ClassVar[float] = 3e-3
    equation: ClassVar[str] = "LoRA on q and v, prefix and adapter, each times its gate σ(w · z + c)"
    source: ClassVar[str] = "Mao et al. 2022, arXiv:2110.07577"
    sends: ClassVar[str] = "per layer: A, B of q and v; n keys and values per key head; D, a, U, b; four gates"
    limits: ClassVar[str] = (
        "Gates are per token and the prefix has its own softmax, unlike the paper's. Cannot be merged."
    )

    rank: int = Field(8, ge=1, le=4096, description="Rank r of LoRA on queries and values.")
    alpha: float = Field(16.0, gt=0, description="Scaling numerator; LoRA's change is multiplied by alpha / r.")
    prefix: int = Field(10, ge=1, le=1024, description="Length n of the prefix.")
    size: int = Field(16, ge=1, le=4096, description="Width m of the adapter's bottleneck.")
    activation: Activation = Field("relu", description="Nonlinearity f of the adapter.")

    def attach(self, model: PreTrainedModel, slot: str) -> Attachment:
        """Hang the parts onto every layer."""
        found = layout(model)
        require_size(found, self.size)
        narrowest = min(
            width for layer in found.layers for side in (layer.query, layer.value) for width in features(side)
        )
        if self.rank > narrowest:
            raise ScenarioError("method.rank", self.rank, f"at most {narrowest}", "queries or values are no wider")
        return Hooked([one for number in range(len(found.layers)) for one in self._layer(found, number)], self.saved())

    def _layer(self, found: Layout, number: int) -> list[Placed]:
        layer, name = found.layers[number], f"layers.{number}"
        wide = found.heads * found.head_size
        placed = []
        for part, linear in (("query", layer.query), ("value", layer.value)):
            read, write = features(linear)
            module = Gated(LowRank(read, write, self.rank, self.alpha / self.rank), read)
            placed.append(Placed(f"{name}.{part}", module, linear, "parallel", read))
        prefix = Gated(Prefix(found.key_value_heads, found.head_size, self.prefix), wide)
        adapter = Gated(Bottleneck(found.hidden, self.size, self.activation), found.hidden)
        return [
            *placed,
            Placed(f"{name}.attention", prefix, layer.attention, "before", wide, tap=layer.query, tap_side="output"),
            Placed(f"{name}.feed_forward", adapter, layer.feed_forward_out, "serial", found.hidden),
        ]

    def private(self, rank: int) -> Method | None:
        """Return the same with its own rank and width and the same scaling."""
        return self.model_copy(update={"rank": rank, "alpha": self.alpha * rank / self.rank, "size": rank})

    def share(self, schema: Schema, start: Vector, trained: Vector, share: float) -> Vector:
        """Scale what comes last in each part: its change is linear in that."""
        outer = (".lora_B.", ".values", ".up.")
        return outer_share(schema, start, trained, share, lambda name: any(part in name for part in outer))


class Gated(nn.Module):
    """A part behind its gate.

    Parameters
    ----------
    part : nn.Module
    width : int
        Of what both read.
    """

    def __init__(self, part: nn.Module, width: int) -> None:
        super().__init__()
        self.part, self.gate = part, nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the part's change, gated for every token."""
        change: Tensor = torch.sigmoid(self.gate(x)) * self.part(x)
        return change


class Prefix(nn.Module):
    """Attention of queries over learnt keys and values; (..., heads · size) to the same.

    Parameters
    ----------
    heads : int
        Of keys and values; each serves as many query heads as there are to one.
    size : int
        Of a head.
    length : int
        Of the prefix.
    """

    def __init__(self, heads: int, size: int, length: int) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.randn(heads, length, size))
        self.values = nn.Parameter(torch.zeros(heads, length, size))

    def forward(self, queries: Tensor) -> Tensor:
        """Return what the prefix adds to the attention's output."""
        heads, _, size = self.keys.shape
        q = queries.unflatten(-1, (heads, -1, size))
        scores = torch.einsum("...hgd,hnd->...hgn", q, self.keys) / size**0.5
        mixed = torch.einsum("...hgn,hnd->...hgd", F.softmax(scores, dim=-1), self.values)
        return mixed.flatten(-3)
