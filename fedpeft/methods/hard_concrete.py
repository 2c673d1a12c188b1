"""The hard concrete gate: a random number in [0, 1] that can be exactly 0 and still has a gradient.

    z = clip(σ((log u - log(1 - u) + α) / τ) (r - l) + l, 0, 1),   u ~ U(0, 1)
    P(z > 0) = σ(α - τ log(-l / r))                               (Louizos et al. 2018, arXiv:1712.01312)

l = -1.5, r = 2.5, τ = 1, as for diff pruning (Guo et al. 2021, arXiv:2012.07463). A gate is drawn only while it is
trained; otherwise u = 1/2. Gates start half open, where Guo et al. start them open, and what is trained is α / 10: so
that at a rate that suits the values some hundred steps decide them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LOW, HIGH, TEMPERATURE, GAIN = -1.5, 2.5, 1.0, 10.0


class GatedChange(nn.Module):
    """The change ``(z ⊙ Δ) x`` of a linear layer; Δ is zero at the start.

    Parameters
    ----------
    read, write : int
    """

    def __init__(self, read: int, write: int) -> None:
        super().__init__()
        self.values, self.gates = (nn.Parameter(torch.zeros(write, read)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Return the change."""
        noise: Tensor | float = 0.0
        if torch.is_grad_enabled() and self.gates.requires_grad:
            noise = torch.logit(torch.rand_like(self.gates), eps=1e-6)
        return F.linear(x, hard_concrete(self.gates, noise) * self.values)

    def expected_open(self) -> Tensor:
        """Return how many gates are expected to be open."""
        return torch.sigmoid(GAIN * self.gates - TEMPERATURE * math.log(-LOW / HIGH)).sum()


def hard_concrete(gates: Tensor, noise: Tensor | float = 0.0) -> Tensor:
    """Return z for α / 10; without noise, what counts outside training."""
    return (torch.sigmoid((noise + GAIN * gates) / TEMPERATURE) * (HIGH - LOW) + LOW).clamp(0, 1)
