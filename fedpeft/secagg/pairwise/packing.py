"""Ring integers of any width from 4 to 32 bits as bytes, without a gap between them."""

from __future__ import annotations

import numpy as np

from fedpeft.codecs.ring import Ring
from fedpeft.errors import ProtocolError

_ROWS = 1 << 15


def ring_dtype(bits: int) -> np.dtype[np.unsignedinteger]:
    """Return the smallest unsigned integer that holds the ring."""
    return np.dtype(np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32)


def packed_size(length: int, bits: int) -> int:
    """Return the bytes of so many integers."""
    return -(-length * bits // 8)


def pack(vector: Ring, bits: int) -> bytes:
    """Write integers one after the other, the least significant bit first."""
    wire = vector.astype(vector.dtype.newbyteorder("<"), copy=False)
    if bits == 8 * vector.itemsize:
        return wire.tobytes()
    parts = []
    for start in range(0, vector.size, _ROWS):  # a multiple of 8 integers, so every part but the last is whole bytes
        rows = np.ascontiguousarray(wire[start : start + _ROWS]).view(np.uint8).reshape(-1, vector.itemsize)
        spread = np.unpackbits(rows, axis=1, bitorder="little")[:, :bits]
        parts.append(np.packbits(spread, bitorder="little").tobytes())
    return b"".join(parts)


def require_packed(data: bytes | memoryview, length: int, bits: int) -> None:
    """Refuse bytes that :func:`pack` did not write.

    Raises
    ------
    ProtocolError
        For another length, or padding that is not zero.
    """
    if len(data) != packed_size(length, bits):
        raise ProtocolError("packed vector length", len(data), f"{packed_size(length, bits)} bytes")
    if length * bits % 8 and data[-1] >> (length * bits % 8):
        raise ProtocolError("packed vector padding", data[-1], "zeros")


def unpack(data: bytes | memoryview, length: int, bits: int) -> Ring:
    """Read what :func:`pack` wrote.

    Raises
    ------
    ProtocolError
        When it did not.
    """
    require_packed(data, length, bits)
    dtype = ring_dtype(bits)
    if bits == 8 * dtype.itemsize:
        return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype, copy=False)
    found = np.empty(length, dtype)
    raw = np.frombuffer(data, np.uint8)
    for start in range(0, length, _ROWS):
        count = min(_ROWS, length - start)
        some = raw[start * bits // 8 : start * bits // 8 + packed_size(count, bits)]
        spread = np.unpackbits(some, count=count * bits, bitorder="little").reshape(count, bits)
        rows = np.packbits(spread, axis=1, bitorder="little")
        whole = np.zeros((count, dtype.itemsize), np.uint8)
        whole[:, : rows.shape[1]] = rows
        found[start : start + count] = whole.view(dtype.newbyteorder("<"))[:, 0]
    return found
