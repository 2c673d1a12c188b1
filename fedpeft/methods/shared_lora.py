"""LoRA shared by layers: consecutive layers use one A and one B for each kind of matrix.

    h_l = W_l x + s B_g A_g x,   g the group of layer l,   s = alpha / r

Sharing low-rank factors across layers: Renduchintala et al. 2024 (Tied-LoRA, arXiv:2311.09578), here without its
per-layer scales; one group is full sharing, as many groups as layers plain LoRA.
"""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedModel

from fedpeft.adapters.schema import Schema, Vector
from fedpeft.errors import ScenarioError
from fedpeft.methods.as_lora import Fold, as_lora
from fedpeft.methods.attachment import Attachment
from fedpeft.methods.hooks import Hooked, Placed
from fedpeft.methods.layout import features, linears, require_rank
from fedpeft.methods.method import Algebra, Method, register
from fedpeft.methods.shares import outer_share

_NUMBERED = re.compile(r"(.*\.)(\d+)\.(\D[^0-9]*)")
"""Stack of layers, number of the layer, kind of matrix."""


@register
class SharedLora(Method):
    """Low-rank changes that groups of layers share."""

    name: ClassVar[str] = "shared_lora"
    algebra: ClassVar[Algebra] = Algebra.MULTILINEAR
    mergeable: ClassVar[bool] = True
    rate: ClassVar[float] = 3e-3
    equation: ClassVar[str] = "h = W x + s B_g A_g x, A_g and B_g shared by the layers of group g"
    source: ClassVar[str] = "Renduchintala et al. 2024, arXiv:2311.09578"
    sends: ClassVar[str] = "A and B: r (in + out) per kind of matrix and group"
    limits: ClassVar[str] = "Layers cannot change in different ways. The mean of A and B is not the mean of B A."

    rank: int = Field(8, ge=1, le=4096, description="Rank r of every shared change.")
    alpha: float = Field(16.0, gt=0, description="Scaling numerator; the change is multiplied by alpha / r.")
    groups: int = Field(1, ge=1, le=1024, description="How many groups of consecutive layers there are.")
    targets: Literal["all-linear"] | list[str] = Field(
        "all-linear", description="Names of the linear modules to adapt, or all of them."
    )

    def attach(self, model: PreTrainedModel, slot: str) -> Attachment:
        """Hang one module onto all the matrices that share it."""
        require_rank(model, self.rank, self.targets)
        targets = linears(model, self.targets)
        owners = self._owners(list(targets))
        shared: dict[str, LowRank] = {}
        placed = []
        for name, linear in targets.items():
            sizes = features(linear)
            if owners[name] not in shared:
                shared[owners[name]] = LowRank(*sizes, self.rank, self.alpha / self.rank)
            module = shared[owners[name]]
            if module.sizes != sizes:
                raise ScenarioError("method.groups", self.groups, "layers of one shape in a group", f"{name} differs")
            placed.append(Placed(name, module, linear, "parallel", sizes[0]))
        used = {name: shared[owner] for name, owner in owners.items()}

        def fold() -> Fold:
            return as_lora({name: (m.lora_A.weight, m.scale * m.lora_B.weight) for name, m in used.items()})

        return Hooked(placed, self.saved(), extra=shared, fold=fold)

    def private(self, rank: int) -> Method | None:
        """Return the same with its own rank and the same scaling."""
        return self.model_copy(update={"rank": rank, "alpha": self.alpha * rank / self.rank})

    def share(self, schema: Schema, start: Vector, trained: Vector, share: float) -> Vector:
        """Scale B alone: the change is linear in it."""
        return outer_share(schema, start, trained, share, lambda name: "lora_B" in name)

    def _owners(self, names: list[str]) -> dict[str, str]:
        """Return the group and kind that each matrix belongs to; every stack of layers has its own groups."""
        found = {name: _NUMBERED.fullmatch(name) for name in names}
        outside = next((name for name, match in found.items() if match is None), None)
        if outside is not None:
            raise ScenarioError("method.targets", outside, "modules inside the layers", "only those can be shared")
        owners, parts = {}, {name: match.groups() for name, match in found.items() if match}
        for name, (stack, layer, kind) in parts.items():
            layers = 1 + max(int(other) for where, other, _ in parts.values() if where == stack)
            if self.groups > layers:
                raise ScenarioError("method.groups", self.groups, f"at most {layers}", "the base has no more layers")
            owners[name] = f"{stack}group{int(layer) * self.groups // layers}.{kind}"
        return owners


class LowRank(nn.Module):
    """The change ``s B A x``; B is zero at the start.

    Parameters
    ----------
    read, write, rank : int
    scale : float
    """

    def __init__(self, read: int, write: int, rank: int, scale: float) -> None:
        super().__init__()
        self.lora_A, self.lora_B = nn.Linear(read, rank, bias=False), nn.Linear(rank, write, bias=False)
        nn.init.zeros_(self.lora_B.weight)
        self.sizes, self.scale = (read, write), scale

    def forward(self, x: Tensor) -> Tensor:
        """Return the change."""
        change: Tensor = self.scale * self.lora_B(self.lora_A(x))
        return change
