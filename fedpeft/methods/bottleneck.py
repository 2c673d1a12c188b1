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

from fedpeft.adapters.schema import Schema, Vector
from fedpeft.errors import ScenarioError
from fedpeft.methods.attachment import Attachment
from fedpeft.methods.hooks import Hooked, Placed
from fedpeft.methods.layout import Layout, layout
from fedpeft.methods.method import Algebra, Method
from fedpeft.methods.shares import outer_share

Activation = Literal["relu", "gelu", "silu"]
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
    rate: ClassVar[float] = 3e-3

    size: int = Field(16, ge=1, le=4096, description="Width m of the bottleneck.")
    activation: Activation = Field("relu", description="Nonlinearity f.")

    @abstractmethod
    def places(self, found: Layout) -> Iterator[Placed]:
        """Yield the adapters of a model, each in its place."""

    def attach(self, model: PreTrainedModel, slot: str) -> Attachment:
        """Hang the adapters onto the model."""
        found = layout(model)
        require_size(found, self.size)
        return Hooked(list(self.places(found)), self.saved())

    def private(self, rank: int) -> Method | None:
        """Return the same with a bottleneck of its own width, after or beside the shared one."""
        return self.model_copy(update={"size": rank})

    def share(self, schema: Schema, start: Vector, trained: Vector, share: float) -> Vector:
        """Scale U and b alone: the change is linear in them."""
        return outer_share(schema, start, trained, share, lambda name: ".up." in name)


def require_size(found: Layout, size: int) -> None:
    """Refuse a bottleneck that is none.

    Raises
    ------
    ScenarioError
        When it is wider than what it reads.
    """
    if size > found.hidden:
        raise ScenarioError(
            "method.size",
            size,
            f"at most {found.hidden}",
            f"the base is {found.hidden} wide; take a smaller bottleneck",
        )
