"""The seam between a client's integers and the server's sum.

A channel protects a payload on the client and opens the sum of many on the server; what lies between is its own
affair. ``plain`` protects nothing: the server could read every payload. It exists to compare against and for
simulations where nobody else runs the server.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedpeft.codecs.ring import Ring, RingCodec
from fedpeft.errors import ProtocolError


class Opener(Protocol):
    """The server's end for one round: takes payloads as they arrive, gives their sum."""

    @property
    def contributors(self) -> int:
        """How many payloads the sum holds."""

    def add(self, client: str, payload: Ring) -> None:
        """Take one client's payload."""

    def open(self) -> NDArray[np.uint64]:
        """Return the sum modulo 2^bits."""


class Channel(Protocol):
    """Both ends of a protocol."""

    @property
    def secure(self) -> bool:
        """Whether the server learns nothing but the sum."""

    def protect(self, payload: Ring) -> Ring:
        """Return what a client sends instead of its payload."""

    def opener(self, ring: RingCodec, length: int) -> Opener:
        """Begin one round on the server."""


class PlainOpener:
    """Adds payloads one at a time, in constant memory; integers, so the order of arrival does not matter."""

    def __init__(self, ring: RingCodec, length: int) -> None:
        self._ring = ring
        self._total = np.zeros(length, np.uint64)
        self._seen: set[str] = set()

    @property
    def contributors(self) -> int:
        """How many payloads the sum holds."""
        return len(self._seen)

    def add(self, client: str, payload: Ring) -> None:
        """Add one client's payload.

        Raises
        ------
        ProtocolError
            For a wrong length or type, an integer beyond a client's levels, a second payload of the same client,
            or one more client than the ring has room for.
        """
        if payload.shape != self._total.shape or payload.dtype != self._ring.dtype:
            raise ProtocolError(
                f"payload of {client}",
                f"{payload.dtype}{payload.shape}",
                f"{self._ring.dtype}{self._total.shape}",
            )
        if payload.size and int(payload.max()) > self._ring.levels:
            raise ProtocolError(f"payload of {client}", int(payload.max()), f"≤ {self._ring.levels}")
        if client in self._seen or len(self._seen) >= self._ring.clients:
            raise ProtocolError(f"payload of {client}", "one too many", "one payload per client of the cohort")
        self._total += payload
        self._seen.add(client)

    def open(self) -> NDArray[np.uint64]:
        """Return the sum modulo 2^bits."""
        return self._total % np.uint64(2**self._ring.bits)


class PlainChannel:
    """No protection at all."""

    secure = False

    def protect(self, payload: Ring) -> Ring:
        """Return the payload as it is."""
        return payload

    def opener(self, ring: RingCodec, length: int) -> PlainOpener:
        """Begin a round."""
        return PlainOpener(ring, length)


CHANNELS: dict[str, type[Channel]] = {"plain": PlainChannel}
