"""Fed-SB: between two frozen factors only a small square matrix is trained, and its mean is exact.

    h = W x + s B R A x,   A: [r, in], B: [out, r] frozen,   R: [r, r] zero at the start
    R <- R + Σ w_i ΔR_i    (Singhal et al. 2025, arXiv:2502.15436; LoRA-XS: Bałazy et al. 2024, arXiv:2405.17604)

``svd`` takes the factors from W = U Σ V: B = U_r, A = Σ_r V_r. Decompositions differ in their last bits between
machines, and the factors belong to the schema. ``random`` therefore draws rows that are orthonormal and exact
everywhere: a random partition of the inputs into r signed sums, divided by the roots of their lengths.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from fedpeft.errors import ScenarioError
from fedpeft.methods.as_lora import Fold, as_lora
from fedpeft.methods.attachment import Attachment
from fedpeft.methods.hooks import Hooked, Placed
from fedpeft.methods.layout import features, linears, require_rank
from fedpeft.methods.method import Algebra, Method, register


@register
class FedSb(Method):
    """A trained square between two frozen factors."""

    name: ClassVar[str] = "fed_sb"
    algebra: ClassVar[Algebra] = Algebra.LINEAR
    mergeable: ClassVar[bool] = True
    rate: ClassVar[float] = 1e-2
    equation: ClassVar[str] = "h = W x + s B R A x, A and B frozen"
    source: ClassVar[str] = "Singhal et al. 2025, arXiv:2502.15436"
    sends: ClassVar[str] = "R: r² per matrix, whatever its size"
    limits: ClassVar[str] = "Learns in r² directions only. The factors of init = svd may differ between machines."

    rank: int = Field(32, ge=1, le=4096, description="Side r of the trained matrix.")
    scale: float = Field(1.0, gt=0, le=1000, description="Factor s before the change.")
    init: Literal["random", "svd"] = Field(
        "random",
        description="Frozen factors: seeded signed sums, equal on every machine, or the base's own directions.",
    )
    targets: Literal["all-linear"] | list[str] = Field(
        "all-linear", description="Names of the linear modules to adapt, or all of them."
    )

    def attach(self, model: PreTrainedModel, slot: str) -> Attachment:
        """Hang a square onto every target."""
        require_rank(model, self.rank, self.targets)
        squares: dict[str, Square] = {}
        placed = []
        for name, linear in linears(model, self.targets).items():
            read, write = features(linear)
            if self.init == "svd":
                a, b = principal(linear, self.rank)
            else:
                a, b = signed_sums(self.rank, read), signed_sums(self.rank, write).T
            squares[name] = Square(a, b, self.scale)
            placed.append(Placed(name, squares[name], linear, "parallel", read))

        def fold() -> Fold:
            return as_lora({name: (one.a, one.scale * one.b @ one.r) for name, one in squares.items()})

        return Hooked(placed, self.saved(), fold=fold)

    def private(self, rank: int) -> Method | None:
        """Return the same; a square is small already. With random factors, a private one has its own."""
        return self


class Square(nn.Module):
    """The change ``s B R A x``.

    Parameters
    ----------
    a, b : Tensor, shapes (r, in) and (out, r)
    scale : float
    """

    def __init__(self, a: Tensor, b: Tensor, scale: float) -> None:
        super().__init__()
        self.a: Tensor
        self.b: Tensor
        self.register_buffer("a", a.contiguous())
        self.register_buffer("b", b.contiguous())
        self.r = nn.Parameter(torch.zeros(len(a), len(a)))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Return the change."""
        return self.scale * (x @ self.a.T @ self.r.T @ self.b.T)


def signed_sums(rank: int, width: int) -> Tensor:
    """Return orthonormal rows of shape (rank, width), the same bits on every machine for one seed."""
    rows, columns = torch.randperm(width) % rank, torch.arange(width)
    signs = 2 * torch.randint(0, 2, (width,)) - 1
    drawn = torch.zeros(rank, width, dtype=torch.float64)
    drawn[rows, columns] = signs.double()
    return (drawn / drawn.abs().sum(1, keepdim=True).sqrt()).float()


def principal(linear: nn.Module, rank: int) -> tuple[Tensor, Tensor]:
    """Return ``Σ_r V_r`` and ``U_r`` of a layer's weight, signs fixed.

    Raises
    ------
    ScenarioError
        When the weight is quantized.
    """
    weight = linear.get_parameter("weight").detach()
    if not weight.is_floating_point():
        raise ScenarioError("method.init", "svd", "random", "the base's weights are quantized")
    matrix = (weight.T if isinstance(linear, Conv1D) else weight).double()
    u, sigma, v = torch.linalg.svd(matrix, full_matrices=False)
    peaks = v.gather(1, v.abs().argmax(1, keepdim=True)).sign()
    return (peaks * sigma[:, None] * v)[:rank].float(), (u * peaks.T)[:, :rank].float()
