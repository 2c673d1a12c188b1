"""Bottleneck adapters: two small linear maps around a nonlinearity, after or beside a block.

    y + U f(D y + a) + b,   D: [m, d] random,  U: [d, m] zero       (Houlsby et al. 2019, arXiv:1902.00751)

The parallel form reads the block's input instead (He et al. 2022, arXiv:2110.04366): ``y + s U f(D x + a) + b``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedModel

from fedpeft.methods.attachment import Attachment
from fedpeft.methods.hooks import Hooked, Placed
from fedpeft.methods.layout import Layout, layout
from fedpeft.methods.method import Algebra, Method

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


class Bottleneck(nn.Module):
    """Down, nonlinearity, up; the start adds nothing.

    Parameters
    ----------
    width, size : int
        Of what is read and written, and of the bottleneck.
    activation : str
    scale : float
        Before the result.
    """

    def __init__(self, width: int, size: int, activation: str = "relu", scale: float = 1.0) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, size), nn.Linear(size, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        self.activation, self.scale = ACTIVATIONS[activation](), scale

    def forward(self, x: Tensor) -> Tensor:
        """Return the change, of the shape of ``x``."""
        change: Tensor = self.scale * self.up(self.activation(self.down(x)))
        return change


class BottleneckMethod(Method):
    """A method of bottleneck adapters; where they stand is the subclass's."""

    algebra: ClassVar[Algebra] = Algebra.NETWORK
    mergeable: ClassVar[bool] = False

    size: int = Field(16, ge=1, le=4096, description="Width m of the bottleneck.")
    activation: Literal["relu", "gelu", "silu"] = Field("relu", description="Nonlinearity f.")

    @abstractmethod
    def places(self, found: Layout) -> Iterator[Placed]:
        """Yield the adapters of a model, each in its place."""

    def attach(self, model: PreTrainedModel, slot: str) -> Attachment:
        """Hang the adapters onto the model."""
        return Hooked(list(self.places(layout(model))), self.saved())
