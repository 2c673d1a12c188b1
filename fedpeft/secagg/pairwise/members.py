"""Sets of clients of a cohort as bitmaps."""

from __future__ import annotations

from collections.abc import Iterable

from fedpeft.errors import ProtocolError


def bitmap_size(clients: int) -> int:
    """Return the bytes of a bitmap over a cohort."""
    return -(-clients // 8)


def to_bitmap(members: Iterable[int], clients: int) -> bytes:
    """Set the bits of some members; client i is bit i mod 8 of byte i // 8."""
    return sum(1 << i for i in set(members)).to_bytes(bitmap_size(clients), "little")


def from_bitmap(data: bytes, clients: int) -> tuple[int, ...]:
    """Return the members in ascending order.

    Raises
    ------
    ProtocolError
        For another length, or a bit beyond the cohort.
    """
    bits = int.from_bytes(data, "little")
    if len(data) != bitmap_size(clients) or bits >> clients:
        raise ProtocolError("bitmap", data.hex()[:32], f"one bit for each of {clients} clients")
    return tuple(i for i in range(clients) if bits >> i & 1)
