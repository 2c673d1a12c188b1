"""AdapterFusion: attention over several Pfeiffer adapters, for every token.

    y + Σ_k p_k V z_k,   p = softmax_k((Q y + c) · (K z_k + e)),   z_k = U_k f(D_k y + a_k) + b_k

Pfeiffer et al. 2021, arXiv:2005.00247. V starts as the identity and is held near it: loss + λ Σ_l ||V_l - 1||². The
adapters are given and frozen, as in the paper, or new and trained together with the fusion.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from fedpeft.adapters import Adapter
from fedpeft.errors import ScenarioError
from fedpeft.methods.attachment import Attachment
from fedpeft.methods.bottleneck import Activation, Bottleneck, require_size
from fedpeft.methods.hooks import Hooked, Placed
from fedpeft.methods.layout import Layout, layout
from fedpeft.methods.method import Algebra, Method, register
from fedpeft.methods.pfeiffer import Pfeiffer


@register
class AdapterFusion(Method):
    """Attention over adapters."""

    name: ClassVar[str] = "adapter_fusion"
    algebra: ClassVar[Algebra] = Algebra.NETWORK
    mergeable: ClassVar[bool] = False
    keeps: ClassVar[tuple[str, ...]] = ("fusion",)
    rate: ClassVar[float] = 3e-3
    equation: ClassVar[str] = "y + Σ_k softmax_k((Q y + c) · (K z_k + e)) V z_k, z_k the adapters' results"
    source: ClassVar[str] = "Pfeiffer et al. 2021, arXiv:2005.00247"
    sends: ClassVar[str] = "new adapters: K (2 d m + m + d) per layer; the fusion, 3 d² + 2 d, stays"
    limits: ClassVar[str] = (
        "Over given adapters the fusion alone is trained: federating it takes federation.private = []."
    )

    adapters: list[str] = Field([], description="Folders of saved pfeiffer adapters of this base; frozen.")
    experts: int = Field(4, ge=1, le=64, description="How many new adapters K to train where none are given.")
    size: int = Field(16, ge=1, le=4096, description="Width m of new adapters.")
    activation: Activation = Field("relu", description="Nonlinearity f of new adapters.")
    pull: float = Field(0.01, ge=0, le=100, description="Factor λ that holds V near the identity.")

    def foundations(self) -> list[Path]:
        """Return the folders of the given adapters."""
        return [Path(folder) for folder in self.adapters]

    def attach(self, model: PreTrainedModel, slot: str) -> Attachment:
        """Hang the adapters and their fusion onto every layer."""
        found = layout(model)
        adapters = self._given(found) if self.adapters else self._new(found)
        placed, values = [], []
        for number, layer in enumerate(found.layers):
            module = Fused(found.hidden, [one[number] for one in adapters])
            values.append(module.fusion.value.weight)
            name = f"layers.{layer.number}.feed_forward"
            placed.append(Placed(name, module, layer.feed_forward_out, "serial", found.hidden))

        def turned() -> Tensor | None:
            one = torch.eye(found.hidden, device=values[0].device)
            return self.pull * torch.stack([(v - one).square().sum() for v in values]).sum() if self.pull else None

        return Hooked(placed, self.saved(), penalty=turned)

    def _new(self, found: Layout) -> list[list[Bottleneck]]:
        require_size(found, self.size)
        return [
            [Bottleneck(found.hidden, self.size, self.activation) for _ in found.layers] for _ in range(self.experts)
        ]

    def _given(self, found: Layout) -> list[list[Bottleneck]]:
        loaded = {str(folder): Adapter.load(folder) for folder in self.foundations()}
        return [frozen(adapter, found, folder) for folder, adapter in loaded.items()]


class Fused(nn.Module):
    """Adapters and the attention over their results.

    Parameters
    ----------
    width : int
    experts : list of Bottleneck
    """

    def __init__(self, width: int, experts: list[Bottleneck]) -> None:
        super().__init__()
        self.experts, self.fusion = nn.ModuleList(experts), Fusion(width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the change, of the shape of ``x``."""
        return self.fusion(x, torch.stack([expert(x) for expert in self.experts], dim=-2))  # type: ignore[no-any-return]


class Fusion(nn.Module):
    """Attention of one token's query over several results for it; (..., d) and (..., K, d) to (..., d)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.value.weight)

    def forward(self, x: Tensor, results: Tensor) -> Tensor:
        """Return the mixture of the results."""
        scores = (self.query(x).unsqueeze(-2) * self.key(results)).sum(-1)
        mixed: Tensor = (F.softmax(scores, dim=-1).unsqueeze(-1) * self.value(results)).sum(-2)
        return mixed


def frozen(adapter: Adapter, found: Layout, folder: str) -> list[Bottleneck]:
    """Return a saved Pfeiffer adapter's bottlenecks, one per layer, frozen.

    Raises
    ------
    ScenarioError
        When it is another method's, or of a base of another shape.
    """
    settings: dict[str, Any] = dict(adapter.config).get("method", {})
    if settings.get("name") != Pfeiffer.name:
        kind = settings.get("name") or adapter.config.get("peft_type")
        raise ScenarioError("method.adapters", f"{kind} in {folder}", "pfeiffer adapters")
    size, tensors, modules = int(settings["size"]), adapter.tensors(), []
    for layer in found.layers:
        module = Bottleneck(found.hidden, size, str(settings["activation"])).requires_grad_(False)
        for name, parameter in module.named_parameters():
            saved = tensors.get(f"layers.{layer.number}.feed_forward.{name}")
            if saved is None or saved.shape != tuple(parameter.shape):
                shape = None if saved is None else saved.shape
                raise ScenarioError(
                    "method.adapters",
                    f"{shape} for {name} of layer {layer.number} in {folder}",
                    f"{tuple(parameter.shape)}",
                )
            parameter.copy_(torch.from_numpy(saved.copy()))
        modules.append(module)
    return modules
