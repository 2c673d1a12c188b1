"""AdaLoRA (Zhang et al. 2023, arXiv:2303.10512): low-rank changes as SVDs, with the ranks where they help.

    h = W x + s P (m ⊙ λ) Q x,   P: [out, r], Q: [r, in] with orthonormal columns and rows,  λ: [r] zero,  s = alpha / r
    loss + γ (||P' P - I||² + ||Q Q' - I||²)          averaged over the matrices
    I(w) = |w dL/dw|,   S_i = I(λ_i) + mean I(P_:i) + mean I(Q_i:)          the paper's sensitivity of a triplet
    m = 1 for the b(t) triplets of all matrices with the largest score, else 0

The budget b(t) falls from init_rank to target_rank per matrix along the paper's cubic, between ``warmup`` and
``until`` steps. In a federation nothing may shrink, or vectors would not add up: the whole P, λ and Q travel, with two
kinds of bookkeeping, in units of 1e-4 so that a quantizing channel carries them like any other coordinate:

- ``importance``, per triplet: the sum over steps of z = (S - mean S) / (S + mean S), which is in [-1, 1);
- ``steps``, one number: how many steps that are.

The mean over clients of these is what the clients found on average, and m is a function of nothing else: whoever holds
the global vector has the public mask, and the server need not know the method. A sum takes the place of the paper's
moving average, whose product with its own uncertainty has no mean. A triplet outside the mask still hears what its λ
would do (its gradient passes as if m were 1; Lin et al. 2020, arXiv:2006.07253), so that it may return.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, cast

import torch
from peft import LoraConfig
from pydantic import Field, model_validator
from torch import Tensor, nn
from transformers import PreTrainedModel

from fedpeft.adapters.schema import Schema, Vector
from fedpeft.errors import ScenarioError
from fedpeft.methods.attachment import Attachment
from fedpeft.methods.hooks import Hooked, Placed
from fedpeft.methods.layout import features, linears, require_rank
from fedpeft.methods.method import Algebra, Method, register
from fedpeft.methods.peft_method import plain
from fedpeft.methods.shares import outer_share

UNIT = 1e-4
"""What a step adds to ``steps``, and at most to an importance."""


class Allocation(nn.Module):
    """Which triplets of a model count.

    Parameters
    ----------
    first, last : int
        Mean rank before ``warmup`` steps and after ``until``.
    warmup, until : int
    """

    def __init__(self, first: int, last: int, warmup: int, until: int) -> None:
        super().__init__()
        self.steps = nn.Parameter(torch.zeros(1))
        self.first, self.last, self.warmup, self.until = first, last, warmup, until
        self.owners: list[Triplets] = []
        self._masks: tuple[tuple[object, ...], list[Tensor]] = ((), [])

    def budget(self) -> int:
        """Return b(t), how many triplets count."""
        done = (float(self.steps.detach()) / UNIT - self.warmup) / (self.until - self.warmup)
        left = 1.0 - min(max(done, 0.0), 1.0)
        return round(len(self.owners) * (self.last + (self.first - self.last) * left**3))

    def masks(self) -> list[Tensor]:
        """Return m of every matrix; boolean, shape (rank,)."""
        scores = [owner.importance for owner in self.owners]
        # Every matrix asks in every pass, and the answer changes with these numbers alone.
        state = (self.steps._version, *(score._version for score in scores), self.steps.device)
        if state != self._masks[0]:
            joined = torch.cat([score.detach() for score in scores])
            kept = torch.zeros_like(joined, dtype=torch.bool)
            # Stable: of equal scores the first are kept, on every machine.
            kept[torch.argsort(joined, descending=True, stable=True)[: self.budget()]] = True
            self._masks = (state, list(kept.split([len(score) for score in scores])))
        return self._masks[1]

    @torch.no_grad()
    def observe(self, _step: int, _total: int) -> None:
        """Add what the last backward pass says of every triplet."""
        found = [owner.sensitivity() for owner in self.owners]
        mean = torch.cat(found).mean()
        if mean > 0:
            for owner, part in zip(self.owners, found, strict=True):
                owner.importance.add_((part - mean) / (part + mean), alpha=UNIT)
        self.steps.add_(UNIT)

    def skew(self) -> Tensor:
        """Return how far P and Q are from orthonormal, on average over the matrices."""
        return torch.stack([owner.skew() for owner in self.owners]).mean()


class Triplets(nn.Module):
    """One matrix's change.

    Parameters
    ----------
    width, out, rank : int
    scale : float
        Before the change.
    allocation : Allocation
        Of all matrices of the model, this one included from now on.
    """

    def __init__(self, width: int, out: int, rank: int, scale: float, allocation: Allocation) -> None:
        super().__init__()
        self.P = nn.Parameter(nn.init.orthogonal_(torch.empty(out, rank)))
        self.E = nn.Parameter(torch.zeros(rank))
        self.Q = nn.Parameter(nn.init.orthogonal_(torch.empty(rank, width)))
        self.importance = nn.Parameter(torch.zeros(rank))
        self.scale, self.allocation, self.number = scale, allocation, len(allocation.owners)
        allocation.owners.append(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the change of the output."""
        # The value of m ⊙ λ with the gradient of λ.
        values = self.E - (self.E * ~self.kept()).detach()
        change: Tensor = self.scale * (x @ self.Q.T * values) @ self.P.T
        return change

    def kept(self) -> Tensor:
        """Return m; boolean, shape (rank,)."""
        return self.allocation.masks()[self.number]

    def sensitivity(self) -> Tensor:
        """Return S, from the gradients that are there."""
        total = torch.zeros_like(self.E)
        for tensor, axis in ((self.E, None), (self.P, 0), (self.Q, 1)):
            if tensor.grad is not None:
                found = (tensor.detach() * tensor.grad).abs()
                total += found if axis is None else found.mean(axis)
        return total

    def skew(self) -> Tensor:
        """Return how far P and Q are from orthonormal."""
        eye = torch.eye(len(self.E), device=self.E.device)
        return (self.P.T @ self.P - eye).square().sum() + (self.Q @ self.Q.T - eye).square().sum()


@register
class AdaLora(Method):
    """Low-rank changes that share out a budget of ranks."""

    name: ClassVar[str] = "adalora"
    algebra: ClassVar[Algebra] = Algebra.MULTILINEAR
    mergeable: ClassVar[bool] = True
    rate: ClassVar[float] = 5e-3
    equation: ClassVar[str] = "h = W x + s P (m ⊙ λ) Q x, m the b(t) most important triplets of the model"
    source: ClassVar[str] = "Zhang et al. 2023, arXiv:2303.10512"
    sends: ClassVar[str] = "P, λ, Q and importance at init_rank: r (in + out + 2) per matrix, and a step count"
    limits: ClassVar[str] = (
        "Uploads never shrink; the mean of P, λ, Q is not the mean of P λ Q; noise for privacy, and server optimizers "
        "with a rate per coordinate, distort importance and step count."
    )

    init_rank: int = Field(12, ge=1, le=4096, description="Rank of every matrix at the start, and of what travels.")
    target_rank: int = Field(8, ge=1, le=4096, description="Mean rank per matrix in the end.")
    alpha: float = Field(32.0, gt=0, description="Scaling numerator; the change is multiplied by alpha / init_rank.")
    warmup: int = Field(50, ge=0, description="Local steps, all rounds together, before ranks are taken away.")
    until: int = Field(200, ge=1, description="Local steps, all rounds together, after which no more are.")
    orthogonality: float = Field(0.1, ge=0, description="Weight γ of the penalty that keeps P and Q orthonormal.")
    targets: Literal["all-linear"] | list[str] = Field(
        "all-linear", description="Names of the linear modules to adapt, or all of them."
    )

    @model_validator(mode="after")
    def _check(self) -> AdaLora:
        if self.target_rank > self.init_rank:
            raise ScenarioError("method.target_rank", self.target_rank, f"at most init_rank = {self.init_rank}")
        if self.until <= self.warmup:
            raise ScenarioError("method.until", self.until, f"more than warmup = {self.warmup}")
        return self

    def attach(self, model: PreTrainedModel, slot: str) -> Attachment:
        """Hang a triplet form beside every target."""
        require_rank(model, self.init_rank, self.targets, "method.init_rank")
        allocation = Allocation(self.init_rank, self.target_rank, self.warmup, self.until)
        scale = self.alpha / self.init_rank
        placed = [
            Placed(
                name,
                Triplets(*features(module), self.init_rank, scale, allocation),
                module,
                "parallel",
                features(module)[0],
            )
            for name, module in linears(model, self.targets).items()
        ]
        return Hooked(
            placed,
            self.saved(),
            extra={"allocation": allocation},
            penalty=lambda: self.orthogonality * allocation.skew() if self.orthogonality else None,
            after_step=allocation.observe,
            fold=lambda: _as_lora({one.name: one.module for one in placed if isinstance(one.module, Triplets)}),
        )

    def share(self, schema: Schema, start: Vector, trained: Vector, share: float) -> Vector:
        """Scale λ alone: the change is linear in it."""
        return outer_share(schema, start, trained, share, lambda name: name.endswith(".E"))


def _as_lora(triplets: Mapping[str, Triplets]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the kept triplets as a LoRA, B = P and A = λ Q, which peft reads."""
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for name, one in triplets.items():
        kept = one.kept()
        if kept.any():
            ranks[name] = int(kept.sum())
            alphas[name] = one.scale * ranks[name]
            tensors[f"base_model.model.{name}.lora_A.weight"] = (one.E[:, None] * one.Q).detach()[kept]
            tensors[f"base_model.model.{name}.lora_B.weight"] = one.P.detach()[:, kept]
    config = LoraConfig(target_modules=sorted(ranks), rank_pattern=ranks, alpha_pattern=cast("dict[str, int]", alphas))
    return tensors, plain(config)
