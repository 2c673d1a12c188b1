"""Adapters in 8 or 4 bits per number, and back.

Every block of numbers x (32 in a row of memory, or one row of a matrix) shares a scale:

    s = max|x| / q,  c = round(x / s),  x' = s c,   q = 127 or 7   =>   |x - x'| <= s / 2

The scale is stored as a bfloat16, rounded up so that no code leaves its range; two 4-bit codes share a byte. A block
of 32 costs 8.5 or 4.5 bits per number. Quantizing after training costs about .5 % of the change in 8 bits and a
tenth in 4 (measured in docs/adapters.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpeft.adapters.adapter import Adapter
from fedpeft.adapters.layout import config_bytes, encoded_bytes
from fedpeft.adapters.packed import Arrays, Known, Packed, metadata
from fedpeft.adapters.schema import Vector
from fedpeft.errors import AdapterError

BLOCK = 32
_HIGHEST = {8: 127, 4: 7}

Codes = NDArray[np.int8]
Scales = NDArray[np.uint16]


@dataclass(frozen=True)
class QuantizedAdapter(Packed):
    """An adapter in integer blocks.

    Parameters
    ----------
    bits : int
        8 or 4.
    block : int
        Numbers that share a scale; 0 for one scale per row.
    codes : ndarray of int8, shape (schema.size,)
    scales : ndarray of uint16
        bfloat16, one per block, tensor after tensor.
    """

    bits: int
    block: int
    codes: Codes
    scales: Scales

    @property
    def form(self) -> str:
        """``int8`` or ``int4``."""
        return f"int{self.bits}"

    def arrays(self) -> Arrays:
        """Return codes and scales as they are stored."""
        codes = self.codes.view(np.uint8) if self.bits == 8 else _pack(self.codes)
        return {"codes": codes, "scales": self.scales}

    def settings(self) -> dict[str, Any]:
        """Return bits and block."""
        return {"bits": self.bits, "block": self.block}

    def dequantize(self) -> Adapter:
        """Return the adapter in float32."""
        out, at, block = np.empty(self.schema.size, np.float32), 0, 0
        scales = _float(self.scales)
        for _, shape in self.schema.shapes:
            size, count = prod(shape), _blocks(shape, self.block)
            wide = _rows(self.codes[at : at + size].astype(np.float32), shape, self.block)
            out[at : at + size] = (wide * scales[block : block + count, None]).ravel()[:size]
            at, block = at + size, block + count
        return Adapter(self.schema, out, self.config, self.base)

    def dense(self) -> Adapter:
        """Return the adapter in float32."""
        return self.dequantize()

    @classmethod
    def read(cls, known: Known, arrays: Arrays, settings: Mapping[str, Any]) -> QuantizedAdapter:
        """Make it from what a folder holds."""
        bits, block, size = int(settings["bits"]), int(settings["block"]), known.schema.size
        scales = sum(_blocks(shape, block) for _, shape in known.schema.shapes)
        stored = size if bits == 8 else (size + 1) // 2
        if bits not in _HIGHEST or arrays["codes"].shape != (stored,) or arrays["scales"].shape != (scales,):
            raise ValueError(f"{stored} codes and {scales} scales were expected")
        packed = arrays["codes"].astype(np.uint8, copy=False)
        codes = packed.view(np.int8) if bits == 8 else _unpack(packed, size)
        return cls(known.schema, known.config, known.base, bits, block, codes, arrays["scales"])


def quantize(adapter: Adapter, bits: int = 8, block: int = BLOCK) -> QuantizedAdapter:
    """Round every number of an adapter to 8 or 4 bits.

    Parameters
    ----------
    adapter : Adapter
        Of any method.
    bits : {8, 4}
    block : int
        Numbers that share a scale; 0 for one scale per row.

    Raises
    ------
    AdapterError
        When there are no such bits or blocks.
    """
    if bits not in _HIGHEST or block < 0:
        raise AdapterError("bits and block", (bits, block), "8 or 4 bits, and a block of 0 or more")
    codes, scales = [], []
    for name, tensor in adapter.tensors().items():
        rows = _rows(tensor.ravel(), dict(adapter.schema.shapes)[name], block).astype(np.float64)
        highest = np.abs(rows).max(axis=1, initial=0.0) / _HIGHEST[bits]
        scale = _bfloat16_above(highest)
        step = _float(scale).astype(np.float64)[:, None]
        found = np.rint(np.divide(rows, step, out=np.zeros_like(rows), where=step > 0))
        codes.append(np.clip(found, -_HIGHEST[bits], _HIGHEST[bits]).astype(np.int8).ravel()[: tensor.size])
        scales.append(scale)
    empty8, empty16 = np.zeros(0, np.int8), np.zeros(0, np.uint16)
    return QuantizedAdapter(
        adapter.schema,
        adapter.config,
        adapter.base,
        bits,
        block,
        np.concatenate([empty8, *codes]),
        np.concatenate([empty16, *scales]),
    )


def predicted_bytes(adapter: Adapter, bits: int, block: int = BLOCK) -> int:
    """Return the bytes of the folder that a quantized adapter will take, without quantizing it."""
    codes = (adapter.schema.size * bits + 7) // 8
    scales = sum(_blocks(shape, block) for _, shape in adapter.schema.shapes)
    header = metadata(adapter.schema, adapter.base, {"bits": bits, "block": block})
    shapes = {"codes": ("U8", (codes,)), "scales": ("U16", (scales,))}
    return encoded_bytes(shapes, header) + len(config_bytes(adapter.config))


def _width(shape: tuple[int, ...], block: int) -> int:
    return block or (shape[-1] if shape else 1)


def _blocks(shape: tuple[int, ...], block: int) -> int:
    width = _width(shape, block)
    return -(-prod(shape) // width) if width else 0


def _rows(flat: NDArray[Any], shape: tuple[int, ...], block: int) -> NDArray[Any]:
    """Cut a tensor into blocks, the last one filled up with zeros."""
    count, width = _blocks(shape, block), _width(shape, block)
    return np.pad(flat, (0, count * width - flat.size)).reshape(count, width)


def _bfloat16_above(values: NDArray[np.float64]) -> Scales:
    """Return the upper halves of the smallest bfloat16 that are not below these numbers."""
    near = values.astype(np.float32)
    above = np.where(near < values, np.nextafter(near, np.float32(np.inf)), near).astype(np.float32)
    return ((above.view(np.uint32).astype(np.uint64) + 0xFFFF) >> 16).astype(np.uint16)


def _float(scales: Scales) -> Vector:
    return (scales.astype(np.uint32) << 16).view(np.float32)


def _pack(codes: Codes) -> NDArray[np.uint8]:
    """Put two codes in a byte, the first in its lower half, each counted from 8."""
    shifted = (np.pad(codes, (0, codes.size % 2)) + 8).astype(np.uint8)
    return np.asarray(shifted[0::2] | (shifted[1::2] << 4), np.uint8)


def _unpack(packed: NDArray[np.uint8], size: int) -> Codes:
    pairs = np.stack([packed & 15, packed >> 4], axis=1).ravel()[:size]
    return pairs.astype(np.int8) - np.int8(8)
