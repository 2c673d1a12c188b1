"""A CUDA device that is pretended: tensors are told apart by where they were put, and computed by the processor.

Every storage that ``.to("cuda:0")`` or a factory makes is noted, and with it whatever is computed from it. Operations
that a real device refuses, because some of their tensors lie elsewhere, are refused here; ``Tensor.device`` says what a
program would read. Numbers are the processor's own, so a program that forgets nothing finds what it finds without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA = torch.device("cuda", 0)
_MOVES = {"aten::copy_", "aten::_to_copy"}
_INDEXED = {"aten::index", "aten::index_put_", "aten::index_put", "aten::_index_put_impl_"}


class _Places:
    """Which storages lie on the device; they are held, so that none is taken for another made in its place."""

    def __init__(self) -> None:
        self._held: dict[int, Any] = {}
        self.computing = False
        """Whether a function of tensors there is running: what it makes of nothing is made there."""

    def put(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self._held[storage._cdata] = storage
        return tensor

    def __contains__(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._held


class _Moves(TorchFunctionMode):
    """Answers what Python asks of a device."""

    def __init__(self, places: _Places) -> None:
        self._places = places

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == torch.Tensor.device.__get__:
            return CUDA if args[0] in self._places else func(*args)
        if func == torch.Tensor.is_cuda.__get__:
            return args[0] in self._places
        if func in (torch.Tensor.cpu, torch.Tensor.cuda):
            return self._moved(args[0], torch.device("cpu") if func is torch.Tensor.cpu else CUDA)
        if func is torch.Tensor.to:
            return self._to(args[0], args[1:], kwargs)
        if func is torch.Tensor.numpy and args[0] in self._places:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if func is torch.Tensor.backward:
            # Checkpoints compute again in there, and ask for devices as they do.
            with self:
                return torch.autograd.backward(args[0])
        if kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cuda":
            return self._places.put(func(*args, **{**kwargs, "device": "cpu"}))
        was = self._places.computing
        self._places.computing = any(isinstance(t, Tensor) and t in self._places for t in tree_leaves((args, kwargs)))
        try:
            return func(*args, **kwargs)
        finally:
            self._places.computing = was

    def _to(self, tensor: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        tensor = tensor.clone() if kwargs.pop("copy", False) else tensor
        if args and isinstance(args[0], Tensor):
            device, dtype = CUDA if args[0] in self._places else args[0].device, args[0].dtype
        else:
            device, dtype, _, _ = torch._C._nn._parse_to(*args, **kwargs)
        moved = tensor if device is None else self._moved(tensor, device)
        return moved if dtype is None else torch.Tensor.to(moved, dtype)

    def _moved(self, tensor: Tensor, device: torch.device) -> Tensor:
        if (device.type == "cuda") == (tensor in self._places):
            return tensor
        # As autograd sees a move: a copy that hands its gradient back to where it came from.
        return _Copy.apply(tensor, self._places, device.type == "cuda")


class _Copy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, places: _Places, there: bool) -> Tensor:
        ctx.places, ctx.there = places, there
        with _ignored():
            copy = tensor.clone()
        return places.put(copy) if there else copy

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        with _ignored():
            copy = gradient.clone()
        return copy if ctx.there else ctx.places.put(copy), None, None


def _ignored() -> Any:
    return torch.utils._python_dispatch._disable_current_modes()


class _Checks(TorchDispatchMode):
    """Refuses operations on tensors of both places, and notes what comes out of the others."""

    def __init__(self, places: _Places) -> None:
        super().__init__()
        self._places = places

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        read = args[:1] + args[2:] if name in _INDEXED else args
        tensors = [t for t in tree_leaves((read, kwargs)) if isinstance(t, Tensor)]
        there = [t for t in tensors if t in self._places]
        strays = [t for t in tensors if t not in self._places and t.dim()]
        if there and strays and name not in _MOVES:
            shapes = ", ".join(str(tuple(t.shape)) for t in strays)
            raise RuntimeError(f"Expected all tensors to be on the same device: {name} with {shapes} on the processor")
        found = func(*args, **(kwargs or {}))
        made = not tensors and self._places.computing
        if made or (there and name != "aten::copy_"):
            for tensor in tree_leaves(found):
                if isinstance(tensor, Tensor):
                    self._places.put(tensor)
        return found


@contextmanager
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Tensor], bool]]:
    """Pretend that there is one CUDA device; yields a function that says whether a tensor lies there."""
    places = _Places()
    with monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "is_available", lambda: True)
        patched.setattr(torch.cuda, "device_count", lambda: 1)
        patched.setattr(torch.cuda, "get_rng_state", lambda *_: torch.zeros(16, dtype=torch.uint8))
        patched.setattr(torch.cuda, "set_rng_state", lambda *_: None)
        patched.setattr(torch.cuda, "empty_cache", lambda: None)
        with _Moves(places), _Checks(places):
            yield lambda tensor: tensor in places
