"""A base of the right shapes that takes no memory: to attach to and to count with, never to compute with.

Its weights are zeros that the system has promised but not handed out (pages that nobody has written to), so making one
costs neither time nor memory, whatever its size, and whatever reads a weight finds one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from fedpeft.base.base import Base
from fedpeft.base.quantize import quantize

_META = torch.device("meta")


def hollow(base: Base, dtype: torch.dtype, precision: str) -> Base:
    """Return a base like another, with zeros for weights.

    Parameters
    ----------
    base : Base
        Held in full; it stays as it is.
    dtype : torch.dtype
        What the copy's weights are of; a classification head stays float32.
    precision : {"full", "nf4", "int8"}
        What its linear layers are packed to.

    Raises
    ------
    BaseError
        When the base has no layers to pack.
    """
    head = {id(base.model.get_parameter(name)) for name in base.head}
    zeros = {
        id(p): nn.Parameter(_zeros(p.shape, p.dtype if id(p) in head else dtype), requires_grad=False)
        for p in base.model.parameters()
    }
    model = copy.deepcopy(base.model, dict(zeros))
    if precision != "full":
        with _Packing():  # type: ignore[no-untyped-call]
            quantize(model, precision, keep=base.head)
        model.requires_grad_(False)
    return replace(base, model=model, precision=precision)


def empty(parameters: Iterable[nn.Parameter]) -> None:
    """Move floating-point parameters to the ``meta`` device in place; whoever holds one holds it still."""
    for parameter in dict.fromkeys(parameters):
        if parameter.is_floating_point():
            torch.utils.swap_tensors(parameter, nn.Parameter(parameter.detach().to(_META), parameter.requires_grad))


class _Packing(TorchDispatchMode):
    """Gives zeros of the right shape for what bitsandbytes would compute."""

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.namespace != "bitsandbytes":
            return func(*args, **(kwargs or {}))
        shapes = func(*tree_map(lambda a: a.to(_META) if isinstance(a, Tensor) else a, args), **(kwargs or {}))
        return tree_map(lambda s: _zeros(s.shape, s.dtype) if isinstance(s, Tensor) else s, shapes)


def _zeros(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Return zeros that take no memory until they are written to."""
    flat = torch.from_numpy(np.zeros(math.prod(shape) * dtype.itemsize, np.uint8))
    return flat.view(dtype).view(shape)
