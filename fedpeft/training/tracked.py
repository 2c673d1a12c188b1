"""The most bytes that tensors hold at once during some work, counted without doing it.

Tensors on torch's ``meta`` device have shapes and storages but no numbers. A mode that sees every operation follows
each new storage until nothing refers to it any more::

    live += bytes of a storage      when an operation first returns it
    live -= the same                when its last reference is gone: a weak one says so
    peak  = max over time of live

So whatever decides when a tensor dies is counted as it is: autograd's saved tensors, checkpoints, chunks, a method's
own arithmetic. Integers and masks are known and stay real, so that what follows from them (how many positions are
labelled) is as in the work itself. The numbers that are read out are all one.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

_META = torch.device("meta")
_aten = torch.ops.aten


def most_bytes(work: Callable[[], object]) -> int:
    """Return the most bytes of new storages alive at once.

    Parameters
    ----------
    work : callable
        Computes with floating-point tensors on the ``meta`` device; real ones that it meets are taken for such.
    """
    with _on_processor(), _Live() as live:
        work()
    most: int = live.peak
    return most


class _Live(TorchDispatchMode):
    """Runs every operation on shapes alone, and counts."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live, self.peak = 0, 0
        self._seen: dict[int, tuple[weakref.ref[torch.UntypedStorage], int]] = {}

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = _tensors(args) + _tensors(tuple(kwargs.values()))
        if func is _aten._local_scalar_dense.default and given[0].is_meta:
            return 1.0
        # What is handed in was there before: the gradient's views of a parameter are nothing new.
        for tensor in given:
            self._follow(tensor, 0)
        if func.namespace == "bitsandbytes":
            out = self._quantized(func, *tree_map(_hollow, (args, kwargs)))
        elif any(tensor.is_meta or tensor.is_floating_point() for tensor in given):
            out = func(*tree_map(_hollow, args), **tree_map(_hollow, _moved(kwargs, _META)))
        else:
            out = _known(func, args, kwargs)
        for tensor in _tensors(out if isinstance(out, tuple | list) else (out,)):
            self._follow(tensor, tensor.untyped_storage().nbytes())
        return out

    def _follow(self, tensor: Tensor, size: int) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._seen:
            return

        def gone(_: object) -> None:
            self.live -= self._seen.pop(key)[1]

        self._seen[key] = weakref.ref(storage, gone), size
        self.live += size
        self.peak = max(self.peak, self.live)

    def _quantized(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one of bitsandbytes' operations, with what its kernels allocate and free within."""
        name = func.name().removeprefix("bitsandbytes::")
        if name == "int8_vectorwise_quant":
            rows = args[0]
            # Which columns are outliers is known from numbers alone; they are few.
            return (
                rows.new_empty(rows.shape, dtype=torch.int8),
                rows.new_empty(rows.shape[:-1], dtype=torch.float32),
                torch.empty(0, dtype=torch.int64),
            )
        if name == "int8_mixed_scaled_mm":
            rows, weight = args[0], args[2]
            return rows.new_empty(*rows.shape[:-1], weight.shape[0]), rows.new_empty(rows.shape[0], 0)
        if name == "gemm_4bit":
            # The processor's kernel unpacks the weight first.
            inside = args[0].element_size() * args[2][0] * args[2][1]
            self.peak = max(self.peak, self.live + inside)
        return func(*args, **kwargs)


@contextmanager
def _on_processor() -> Iterator[None]:
    """Take the attention that a processor takes: the fused one, which keeps no matrix of weights."""
    # Not by a TorchFunctionMode: what is computed again in the backward pass would not see it.
    plain = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = _attention
    try:
        yield
    finally:
        F.scaled_dot_product_attention = plain


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if enable_gqa:
        shared = query.shape[-3] // key.shape[-3]
        key, value = (x.repeat_interleave(shared, dim=-3) for x in (key, value))
    if attn_mask is not None:
        attn_mask = torch.empty(attn_mask.shape, dtype=query.dtype, device=_META)
    out: Tensor = _aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
    )[0]
    return out


def _known(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Compute what follows from integers alone, unless it is floating-point."""
    moved = _moved(kwargs, _META)
    if not _tensors(args):
        moved["device"] = _META
    try:
        probe = func(*tree_map(_hollow, args), **tree_map(_hollow, moved))
    except (NotImplementedError, RuntimeError):  # its shape follows from the numbers
        probe = None
    if any(isinstance(leaf, Tensor) and leaf.is_floating_point() for leaf in tree_leaves(probe)):
        return probe
    return func(*args, **_moved(kwargs, torch.device("cpu")))


def _tensors(values: tuple[Any, ...] | list[Any]) -> list[Tensor]:
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, tuple | list):
            found += _tensors(value)
    return found


def _hollow(value: Any) -> Any:
    return value.to(_META) if isinstance(value, Tensor) and not value.is_meta else value


def _moved(kwargs: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {**kwargs, "device": device} if kwargs.get("device") is not None else dict(kwargs)
