"""A mixture of bottleneck experts after the feed-forward block; a router picks a few for every token.

    y + Σ_{e in top k} g_e m_e(y),   g = softmax over the chosen of (R y + c)_e,   m_e(y) = U_e f(D_e y + a_e) + b_e

Shazeer et al. 2017 (arXiv:1701.06538) on adapters (AdaMix: Wang et al. 2022, arXiv:2205.12410). With k = 1 the gate is
the chosen one's probability among all, or the router would learn nothing. The penalty that keeps experts in use
(Fedus et al. 2021, arXiv:2101.03961), with f_e the share of choices that fall on e, and P_e its mean probability:

    λ E Σ_e f_e P_e,   averaged over layers
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
from fedpeft.methods.layout import layout
from fedpeft.methods.method import Algebra, Method, register
from fedpeft.methods.shares import outer_share


@register
class ExpertMixture(Method):
    """Routed bottleneck experts."""

    name: ClassVar[str] = "expert_mixture"
    algebra: ClassVar[Algebra] = Algebra.NETWORK
    mergeable: ClassVar[bool] = False
    keeps: ClassVar[tuple[str, ...]] = ("router",)
    rate: ClassVar[float] = 3e-3
    equation: ClassVar[str] = "y + Σ_{e in top k} g_e (U_e f(D_e y + a_e) + b_e), g = softmax(R y + c)"
    source: ClassVar[str] = "Shazeer et al. 2017, arXiv:1701.06538"
    sends: ClassVar[str] = "D, a, U, b: E (2 d m + m + d) per layer; the router, E (d + 1), stays"
    limits: ClassVar[str] = (
        "All experts are computed for all tokens. Averaged experts mean the same only near a common start."
    )

    experts: int = Field(4, ge=2, le=256, description="Number E of experts per layer.")
    top: int = Field(2, ge=1, le=256, description="How many experts k a token is given to.")
    size: int = Field(8, ge=1, le=4096, description="Width m of each expert's bottleneck.")
    activation: Activation = Field("relu", description="Nonlinearity f.")
    balance: float = Field(0.01, ge=0, le=100, description="Factor λ of the penalty for uneven use; 0 for none.")

    def attach(self, model: PreTrainedModel, slot: str) -> Attachment:
        """Hang a mixture onto every layer."""
        found = layout(model)
        require_size(found, self.size)
        if self.top > self.experts:
            raise ScenarioError("method.top", self.top, f"at most experts = {self.experts}")
        placed, mixtures = [], []
        for layer in found.layers:
            experts = [Bottleneck(found.hidden, self.size, self.activation) for _ in range(self.experts)]
            mixtures.append(Mixture(found.hidden, experts, self.top))
            name = f"layers.{layer.number}.feed_forward"
            placed.append(Placed(name, mixtures[-1], layer.feed_forward_out, "serial", found.hidden))

        def uneven() -> Tensor | None:
            found = [one for mixture in mixtures if (one := mixture.take_imbalance()) is not None]
            return self.balance * torch.stack(found).mean() if found and self.balance else None

        return Hooked(placed, self.saved(), penalty=uneven)

    def private(self, rank: int) -> Method | None:
        """Return the same with experts of their own width, after the shared ones."""
        return self.model_copy(update={"size": rank})

    def share(self, schema: Schema, start: Vector, trained: Vector, share: float) -> Vector:
        """Scale the experts' U and b alone: the change is linear in them."""
        return outer_share(schema, start, trained, share, lambda name: ".up." in name)


class Mixture(nn.Module):
    """Experts and their router.

    Parameters
    ----------
    width : int
    experts : list of nn.Module
    top : int
        How many a token is given to.
    """

    def __init__(self, width: int, experts: list[Bottleneck], top: int) -> None:
        super().__init__()
        self.experts, self.router, self.top = nn.ModuleList(experts), nn.Linear(width, len(experts)), top
        self._imbalance: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the change, of the shape of ``x``."""
        scores = self.router(x)
        probabilities = F.softmax(scores, dim=-1)
        best, chosen = scores.topk(self.top, dim=-1)
        gates = probabilities.gather(-1, chosen) if self.top == 1 else F.softmax(best, dim=-1)
        weights = torch.zeros_like(scores).scatter(-1, chosen, gates)
        if torch.is_grad_enabled() and self.router.weight.requires_grad:
            self._imbalance = imbalance(probabilities, chosen)
        return torch.stack([w.unsqueeze(-1) * e(x) for w, e in zip(weights.unbind(-1), self.experts, strict=True)]).sum(
            0
        )

    def take_imbalance(self) -> Tensor | None:
        """Return how unevenly the experts were used in the last pass that was trained on, once."""
        taken, self._imbalance = self._imbalance, None
        return taken


def imbalance(probabilities: Tensor, chosen: Tensor) -> Tensor:
    """Return ``E Σ f_e P_e``: 1 when all experts are used alike, E when one is used alone.

    Parameters
    ----------
    probabilities : Tensor, shape (..., E)
    chosen : Tensor of int64, shape (..., k)
    """
    count = probabilities.shape[-1]
    used = F.one_hot(chosen, count).flatten(0, -2).float().mean(0)
    return count * (used * probabilities.flatten(0, -2).mean(0)).sum()
