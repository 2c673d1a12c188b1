"""What each mergeable method does to a weight of the base, and the arithmetic that takes it back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedpeft.adapters.adapter import Adapter
from fedpeft.adapters.factors import Factors, factors
from fedpeft.adapters.schema import Schema, Vector
from fedpeft.errors import AdapterError, nearest

_PREFIX, _MAGNITUDE, _IA3 = "base_model.model.", ".lora_magnitude_vector", ".ia3_l"


@dataclass(frozen=True)
class Change:
    """A change of one weight, in float32.

    Parameters
    ----------
    apply : callable
        The weight -> the changed weight.
    remove : callable
        The changed weight -> the weight, up to rounding.
    """

    apply: Callable[[Tensor], Tensor]
    remove: Callable[[Tensor], Tensor]


def changes(adapter: Adapter, weights: Mapping[str, Tensor], transposed: set[str] | None) -> dict[str, Change]:
    """Return what an adapter does to each weight of a base.

    Parameters
    ----------
    adapter : Adapter
    weights : mapping of str to Tensor
        The base's parameters by name.
    transposed : set of str or None
        Modules that keep their weight as (in, out); None asks the adapter's configuration.

    Raises
    ------
    AdapterError
        When the method is not mergeable or the base lacks a weight that it changes.
    """
    kinds = {"LORA": _lora, "IA3": _ia3}
    kind = adapter.config.get("peft_type")
    if kind not in kinds:
        remedy = "run it beside the base, or merge it with peft if the method is mergeable there"
        raise AdapterError("adapter type", kind, "a mergeable method (LORA, DoRA, IA3)", remedy)
    everywhere = bool(adapter.config.get("fan_in_fan_out"))
    found = {}
    for site in kinds[kind](adapter):
        if site.weight not in weights:
            if site.optional:
                continue
            remedy = nearest(site.weight, weights)
            raise AdapterError(f"base weight {site.weight}", "absent", "a plain Hugging Face model", remedy)
        flipped = bool(site.module) and (everywhere if transposed is None else site.module in transposed)
        expected, shape = site.shape[::-1] if flipped else site.shape, tuple(weights[site.weight].shape)
        if len(shape) != len(expected) or any(e not in (None, n) for e, n in zip(expected, shape, strict=True)):
            raise AdapterError(f"base weight {site.weight}", shape, f"shape {expected}")
        change = site.make(weights[site.weight].device)
        both = (partial(_flip, change.apply), partial(_flip, change.remove))
        found[site.weight] = Change(*both) if flipped else change
    return found


@dataclass(frozen=True)
class _Site:
    """A weight to change: its name, its module's, its shape with None where any will do, and what to do to it."""

    weight: str
    module: str
    shape: tuple[int | None, ...]
    make: Callable[[torch.device], Change]
    optional: bool = False


def _lora(adapter: Adapter) -> Iterator[_Site]:
    tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in adapter.tensors().items()}
    # peft's files leave out the ".weight" that its live tensors, and so our adapters, have.
    magnitudes = {n: tensor for n, tensor in tensors.items() if n.removesuffix(".weight").endswith(_MAGNITUDE)}
    heads = tuple(f"{module}." for module in adapter.config.get("modules_to_save") or ())
    whole = {name: tensor for name, tensor in tensors.items() if heads and name.startswith(heads)}
    for module, part in factors(_without(adapter, {*magnitudes, *whole})).items():
        magnitude = magnitudes.get(module + _MAGNITUDE, magnitudes.get(f"{module}{_MAGNITUDE}.weight"))
        if bool(adapter.config.get("use_dora")) != (magnitude is not None):
            raise AdapterError(f"adapter module {module}", "no magnitudes", "a DoRA's lora_magnitude_vector")
        shape = (part.b.shape[0], part.a.shape[1])
        yield _Site(f"{module}.weight", module, shape, partial(_low_rank, part, magnitude))
    for name, tensor in whole.items():
        # A trained head takes the place of the base's, as it lies.
        yield _Site(name, "", tensor.shape, partial(_replaced, tensor))


def _ia3(adapter: Adapter) -> Iterator[_Site]:
    for name, scale in adapter.tensors().items():
        if not name.endswith(_IA3) or scale.ndim != 2 or 1 not in scale.shape:
            raise AdapterError(f"adapter tensor {name}", scale.shape, "ia3_l of a linear layer")
        module = name.removeprefix(_PREFIX).removesuffix(_IA3)
        outputs, inputs = scale.shape
        # A column scales outputs, the bias among them; a row scales the inputs of a feed-forward layer.
        shape = (None, inputs) if outputs == 1 else (outputs, None)
        yield _Site(f"{module}.weight", module, shape, partial(_scaled, scale))
        if outputs != 1:
            yield _Site(f"{module}.bias", module, (outputs,), partial(_scaled, scale.ravel()), optional=True)


def _low_rank(part: Factors, magnitude: Vector | None, device: torch.device) -> Change:
    a, b = _tensor(part.a, device), _tensor(part.b, device)

    def delta() -> Tensor:
        return (b @ a) * part.scaling

    if magnitude is None:
        return Change(lambda weight: weight + delta(), lambda merged: merged - delta())
    lengths: list[Tensor] = []

    def apply(weight: Tensor) -> Tensor:
        moved = weight + delta()
        # Rows' lengths are those of the unmerged weight; to take the change out they must be known.
        lengths[:] = [(_tensor(magnitude, device) / torch.linalg.norm(moved, dim=1)).view(-1, 1)]
        return lengths[0] * moved

    return Change(apply, lambda merged: merged / lengths[0] - delta())


def _scaled(scale: Vector, device: torch.device) -> Change:
    factor = _tensor(scale, device)
    return Change(lambda weight: weight * factor, lambda merged: merged / factor)


def _flip(change: Callable[[Tensor], Tensor], weight: Tensor) -> Tensor:
    return change(weight.T).T.contiguous() if weight.ndim == 2 else change(weight)


def _replaced(tensor: Vector, device: torch.device) -> Change:
    return Change(lambda weight: _tensor(tensor, device), lambda merged: merged)


def _without(adapter: Adapter, names: set[str]) -> Adapter:
    """Return an adapter's factors as if they were a plain LoRA's."""
    if not names:
        return adapter
    tensors = {n: t for n, t in adapter.tensors().items() if n.removeprefix(_PREFIX) not in names}
    schema = Schema.of({n: t.shape for n, t in tensors.items()})
    config = {**adapter.config, "use_dora": False, "modules_to_save": None}
    return replace(adapter, schema=schema, vector=schema.flatten(tensors), config=config)


def _tensor(array: Any, device: torch.device) -> Tensor:
    return torch.from_numpy(np.array(array, np.float32)).to(device)
