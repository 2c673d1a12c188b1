"""Compacter: bottleneck adapters whose maps are sums of Kronecker products with matrices that all layers share.

    D = Σ_i A_i ⊗ (s_i t_i),   A_i: [n, n] shared,  s_i: [d/n, r],  t_i: [r, m/n],  i = 1..n;   U alike, its t_i zero

Mahabadi et al. 2021, arXiv:2106.04647; the products are parameterized hypercomplex multiplications (Zhang et al. 2021,
arXiv:2102.08597). The adapters stand where Houlsby's do.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedModel

from fedpeft.adapters.schema import Schema, Vector
from fedpeft.errors import ScenarioError
from fedpeft.methods.attachment import Attachment
from fedpeft.methods.bottleneck import ACTIVATIONS, Activation, require_size
from fedpeft.methods.hooks import Hooked, Placed
from fedpeft.methods.layout import layout
from fedpeft.methods.method import Algebra, Method, register
from fedpeft.methods.shares import outer_share


@register
class Compacter(Method):
    """Bottleneck adapters of shared Kronecker factors, after attention and feed-forward."""

    name: ClassVar[str] = "compacter"
    algebra: ClassVar[Algebra] = Algebra.NETWORK
    mergeable: ClassVar[bool] = False
    rate: ClassVar[float] = 3e-3
    equation: ClassVar[str] = "y + U f(D y + a) + b, D = Σ_i A_i ⊗ (s_i t_i), A_i shared by all layers"
    source: ClassVar[str] = "Mahabadi et al. 2021, arXiv:2106.04647"
    sends: ClassVar[str] = "s, t, a, b: 2 (2 r (d + m) + m + d) per layer, and A: n³ once"
    limits: ClassVar[str] = (
        "Cannot be merged. Products of averaged factors: the mean is right near a common start only."
    )

    n: int = Field(4, ge=1, le=64, description="Number and side of the shared matrices A_i; it divides d and size.")
    size: int = Field(16, ge=1, le=4096, description="Width m of the bottleneck.")
    rank: int = Field(1, ge=1, le=256, description="Rank r of the products s_i t_i.")
    activation: Activation = Field("gelu", description="Nonlinearity f.")

    def attach(self, model: PreTrainedModel, slot: str) -> Attachment:
        """Hang two adapters onto every layer."""
        found = layout(model)
        require_size(found, self.size)
        self._require_divisors(found.hidden)
        rules, placed = Rules(self.n), []
        for layer in found.layers:
            for part, at in (("attention", layer.attention), ("feed_forward", layer.feed_forward_out)):
                module = KroneckerBottleneck(found.hidden, self.size, self.rank, rules, self.activation)
                placed.append(Placed(f"layers.{layer.number}.{part}", module, at, "serial", found.hidden))
        return Hooked(placed, self.saved(), extra={"shared": rules})

    def private(self, rank: int) -> Method | None:
        """Return the same with products of another rank, after the shared one."""
        return self.model_copy(update={"rank": min(rank, self.size // self.n)})

    def share(self, schema: Schema, start: Vector, trained: Vector, share: float) -> Vector:
        """Scale U's last factor and b alone: the change is linear in them."""
        return outer_share(schema, start, trained, share, lambda name: name.endswith(("up.right", "up.bias")))

    def _require_divisors(self, width: int) -> None:
        if width % self.n:
            raise ScenarioError("method.n", self.n, f"a divisor of {width}", f"the base is {width} wide")
        if self.size % self.n:
            raise ScenarioError("method.size", self.size, f"a multiple of n = {self.n}")
        if self.rank > self.size // self.n:
            raise ScenarioError(
                "method.rank", self.rank, f"at most size / n = {self.size // self.n}", "no t_i has a higher rank"
            )


class Rules(nn.Module):
    """The matrices A_i that all adapters of a model share; (n, n, n)."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.rules = nn.Parameter(torch.randn(n, n, n) / n**0.5)


class Kronecker(nn.Module):
    """A linear map ``x W + b`` with W = Σ_i A_i ⊗ (s_i t_i).

    Parameters
    ----------
    read, write : int
        Widths, both multiples of n.
    rank : int
    shared : Rules
        The A_i.
    """

    def __init__(self, read: int, write: int, rank: int, shared: Rules) -> None:
        super().__init__()
        n = len(shared.rules)
        # So that the entries of W have variance 1 / read, as those of any linear layer.
        deviation = (rank * read) ** -0.25
        self.shared = shared
        self.left = nn.Parameter(deviation * torch.randn(n, read // n, rank))
        self.right = nn.Parameter(deviation * torch.randn(n, rank, write // n))
        self.bias = nn.Parameter(torch.zeros(write))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x W + b``."""
        weight = torch.einsum("iab,icr,ird->acbd", self.shared.rules, self.left, self.right)
        return x @ weight.reshape(x.shape[-1], -1) + self.bias


class KroneckerBottleneck(nn.Module):
    """Down, nonlinearity, up; the start adds nothing."""

    def __init__(self, width: int, size: int, rank: int, shared: Rules, activation: str) -> None:
        super().__init__()
        self.down, self.up = Kronecker(width, size, rank, shared), Kronecker(size, width, rank, shared)
        nn.init.zeros_(self.up.right)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        """Return the change, of the shape of ``x``."""
        change: Tensor = self.up(self.activation(self.down(x)))
        return change
