"""Fold an adapter into the base's own weights, and take it out again to the bit.

    LoRA    W' = W + s B A
    DoRA    W' = m (W + s B A) / ||W + s B A||        (norms of rows)
    IA3     W' = l W, bias' = l bias;  or W' = W l before a feed-forward layer
    heads   W' = the trained one

Merged weights cost nothing extra to compute with, and serve one person. Taking the change out by subtraction would
leave rounding behind, so the originals are kept; or, with ``low_memory``, what subtraction leaves is recorded: the
differences of the bit patterns are mostly 0 and ±1, and compress to a few percent of the weights.
"""

from __future__ import annotations

import zlib
from collections.abc import MutableMapping
from dataclasses import dataclass
from hashlib import sha256
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedpeft.adapters.adapter import Adapter
from fedpeft.adapters.changes import Change, changes
from fedpeft.errors import AdapterError

_PATTERNS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}


@dataclass(frozen=True)
class _Left:
    """What undoing a change by arithmetic leaves wrong, and the sha256 of what it shall give."""

    difference: bytes
    kind: str
    digest: bytes


class Merged:
    """A model with an adapter in its weights. Leaving the ``with`` block, or :meth:`undo`, restores it to the bit.

    Attributes
    ----------
    names : list of str
        The parameters that were changed.
    lost : float
        Share of the change that rounding to the weights' precision lost, ``||(W' - W) - ΔW|| / ||ΔW||``; 0 in float32.
    """

    def __init__(self, weights: MutableMapping[str, Tensor], plan: dict[str, Change], low_memory: bool) -> None:
        self._weights, self._plan, self._low_memory = weights, plan, low_memory
        self._originals: dict[str, Tensor] = {}
        self._marks: dict[str, tuple[int, int]] = {}
        self._left: dict[str, _Left] = {}
        self._undone = False
        self.names = list(plan)
        wrong = whole = 0.0
        for name, change in plan.items():
            before = weights[name]
            exact = change.apply(before.float())
            after = exact.to(before.dtype)
            if not torch.isfinite(after).all():
                self.undo()
                raise AdapterError(f"merged weight {name}", "NaN or infinity", "finite numbers")
            if low_memory:
                self._left[name] = _difference(before, _applied(change.remove, after))
            else:
                self._originals[name] = before
            weights[name] = after
            self._marks[name] = _mark(after)
            wrong += float((after.float() - exact).square().sum(dtype=torch.float64))
            whole += float((exact - before.float()).square().sum(dtype=torch.float64))
        self.lost = (wrong / whole) ** 0.5 if whole else 0.0

    @property
    def kept_bytes(self) -> int:
        """Memory that is held to undo the merge."""
        whole = sum(t.numel() * t.element_size() for t in self._originals.values())
        return whole + sum(len(left.difference) for left in self._left.values())

    def undo(self) -> None:
        """Restore the weights to the bit; twice is once.

        Raises
        ------
        AdapterError
            When the merged weights were replaced since, as by another merge, which must be undone first; with
            ``low_memory`` also when they were written to.
        """
        if self._undone:
            return
        for name, (place, total) in self._marks.items():
            found = self._weights[name]
            if found.data_ptr() != place and _mark(found)[1] != total:
                raise AdapterError(
                    f"merged weight {name}", "another tensor", "the merged one", "undo later merges first"
                )
        for name, original in self._originals.items():
            self._weights[name] = original
        for name, left in self._left.items():
            self._weights[name] = _restored(name, _applied(self._plan[name].remove, self._weights[name]), left)
        self._undone = True
        self._originals, self._left = {}, {}

    def __enter__(self) -> Merged:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()


def merge(model: nn.Module | MutableMapping[str, Tensor], adapter: Adapter, low_memory: bool = False) -> Merged:
    """Fold an adapter into a model's weights.

    Parameters
    ----------
    model : Module or mapping of str to Tensor
        A plain Hugging Face model, not one that peft wraps, or its state dict. Changed weights are new tensors;
        the old ones are not written to, so other models that share them do not change.
    adapter : Adapter
        A LoRA (rsLoRA, DoRA, any ranks, with its head) or IA3. Whether it belongs to this base is
        :meth:`Adapter.require_base`'s to say.
    low_memory : bool
        Keep a compressed correction instead of the original tensors.

    Returns
    -------
    Merged
        Undoes the merge.

    Raises
    ------
    AdapterError
        When the method is not mergeable, or a weight is missing, of another shape, quantized, or shared with
        another layer.
    """
    weights: MutableMapping[str, Tensor] = _Parameters(model) if isinstance(model, nn.Module) else model
    conv1d = _conv1d(model) if isinstance(model, nn.Module) else None
    plan = changes(adapter, weights, conv1d)
    shared = _shared(model)
    for name in plan:
        if weights[name].dtype not in _PATTERNS:
            raise AdapterError(f"base weight {name}", str(weights[name].dtype), "floats", "dequantize the base first")
        if name in shared:
            raise AdapterError(f"base weight {name}", f"shared with {shared[name]}", "a weight of its own")
    with torch.no_grad():
        return Merged(weights, plan, low_memory)


@torch.no_grad()
def mismatch(adapter: Adapter, trained: nn.Module, other: nn.Module) -> float:
    """Return how far a merge into other weights is from what was trained, in units of the adapter's change.

    Parameters
    ----------
    adapter : Adapter
    trained, other : Module
        The same model with the weights that the adapter was trained over, and with others. Neither is changed.

    Returns
    -------
    float
        ``||merged(other) - merged(trained)|| / ||merged(trained) - trained||`` over all weights; 0 for equal weights.
    """
    here, there = _Parameters(trained), _Parameters(other)
    plan = changes(adapter, here, _conv1d(trained))
    apart = moved = 0.0
    for name in here:
        before, after, instead = here[name].float(), here[name].float(), there[name].float()
        if name in plan:
            after, instead = plan[name].apply(before), plan[name].apply(instead)
        apart += float((instead - after).square().sum(dtype=torch.float64))
        moved += float((after - before).square().sum(dtype=torch.float64))
    return float((apart / moved) ** 0.5) if moved else 0.0


class _Parameters(MutableMapping[str, Tensor]):
    """A module's parameters by name; setting one points it at another tensor."""

    def __init__(self, model: nn.Module) -> None:
        self._parameters = dict(model.named_parameters(remove_duplicate=False))

    def __getitem__(self, name: str) -> Tensor:
        return self._parameters[name].data

    def __setitem__(self, name: str, value: Tensor) -> None:
        self._parameters[name].data = value

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"a model keeps its parameters: {name}")

    def __iter__(self) -> Any:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)


def _conv1d(model: nn.Module) -> set[str]:
    """Name the modules that keep their weight as (in, out), as GPT-2's do."""
    return {name for name, module in model.named_modules() if type(module).__name__ == "Conv1D"}


def _shared(model: nn.Module | MutableMapping[str, Tensor]) -> dict[str, str]:
    """Name, for each weight that two layers share, the other: a change of one would be a change of both."""
    every = model.named_parameters(remove_duplicate=False) if isinstance(model, nn.Module) else model.items()
    places: dict[int, list[str]] = {}
    for name, tensor in every:
        places.setdefault(tensor.data_ptr(), []).append(name)
    return {a: next(b for b in names if b != a) for names in places.values() if len(names) > 1 for a in names}


def _applied(change: Any, weight: Tensor) -> Tensor:
    """Change a weight in float32 and round once to its own precision."""
    changed: Tensor = change(weight.float())
    return changed.to(weight.dtype)


def _mark(weight: Tensor) -> tuple[int, int]:
    """Return where a tensor lies and the sum of its bit patterns."""
    return weight.data_ptr(), int(weight.contiguous().view(_PATTERNS[weight.dtype]).sum(dtype=torch.int64))


def _bits(weight: Tensor) -> NDArray[np.signedinteger[Any]]:
    return weight.contiguous().view(_PATTERNS[weight.dtype]).cpu().numpy()


def _difference(before: Tensor, back: Tensor) -> _Left:
    wanted, found = _bits(before), _bits(back)
    difference = wanted - found  # wraps around, and back again
    largest = max(int(difference.max(initial=0)), -int(difference.min(initial=0)))
    kind = next(k for k in ("int8", "int16", "int32") if largest <= np.iinfo(k).max or k == "int32")
    return _Left(zlib.compress(difference.astype(kind).tobytes(), 1), kind, sha256(wanted.tobytes()).digest())


def _restored(name: str, back: Tensor, left: _Left) -> Tensor:
    found = _bits(back)
    difference = np.frombuffer(zlib.decompress(left.difference), left.kind).reshape(found.shape)
    bits = found + difference.astype(found.dtype)
    if sha256(bits.tobytes()).digest() != left.digest:
        raise AdapterError(f"merged weight {name}", "changed since the merge", "what was merged", "load the base again")
    return torch.from_numpy(bits).view(back.dtype).to(back.device)
