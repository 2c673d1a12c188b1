"""BitFit: only biases are trained. Where the base has none, as in Llama, zero ones are added.

h = f(x) + b,   b zero at the start, for linear layers and norms    (Ben Zaken et al. 2022, arXiv:2106.10199)
"""

from __future__ import annotations

import re
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedModel

from fedpeft.methods.attachment import Attachment
from fedpeft.methods.hooks import Hooked, Placed
from fedpeft.methods.layout import features, linears
from fedpeft.methods.method import Algebra, Method, register


@register
class BitFit(Method):
    """Changes of biases."""

    name: ClassVar[str] = "bitfit"
    algebra: ClassVar[Algebra] = Algebra.LINEAR
    mergeable: ClassVar[bool] = False
    rate: ClassVar[float] = 3e-3
    equation: ClassVar[str] = "h = f(x) + b, after linear layers and norms"
    source: ClassVar[str] = "Ben Zaken et al. 2022, arXiv:2106.10199"
    sends: ClassVar[str] = "b: the output width of every linear layer and norm"
    limits: ClassVar[str] = (
        "Changes no weight. Only where the base has biases of its own (BERT, not Llama) can b be merged."
    )

    targets: Literal["all-linear"] | list[str] = Field(
        "all-linear", description="Names of the linear modules whose biases are trained, or all of them."
    )
    norms: bool = Field(True, description="Train biases of the norms inside the layers too.")

    def attach(self, model: PreTrainedModel, slot: str) -> Attachment:
        """Hang a bias onto every target."""
        widths = {name: (module, features(module)[1]) for name, module in linears(model, self.targets).items()}
        if self.norms:
            widths |= {name: (module, module.get_parameter("weight").numel()) for name, module in norms(model).items()}
        placed = [Placed(name, Bias(width), module, "serial", width) for name, (module, width) in widths.items()]
        return Hooked(placed, self.saved())

    def private(self, rank: int) -> Method | None:
        """Return the same: biases have no rank, and add up."""
        return self


class Bias(nn.Module):
    """The change ``b``, whatever comes in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the bias, of the shape of ``x``."""
        return self.bias.expand_as(x)


def norms(model: nn.Module) -> dict[str, nn.Module]:
    """Return the norms inside a model's numbered layers by name, whatever their kind."""
    return {
        name: module
        for name, module in model.named_modules()
        if re.search(r"\.\d+\.", name)
        and type(module).__name__.endswith("Norm")
        and isinstance(weight := getattr(module, "weight", None), Tensor)
        and weight.ndim == 1
    }
