"""The seam between a client's integers and the server's sum.

A channel protects a payload on the client and opens the sum of many on the server; what lies between is its own
affair. ``plain`` protects nothing: the server could read every payload. It exists to compare against and for
simulations where nobody else runs the server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from fedpeft.errors import ProtocolError

if TYPE_CHECKING:
    # Names of types alone: a device that only enrols has no use for what computes with them.
    from fedpeft.codecs.ring import Ring, RingCodec


@dataclass(frozen=True)
class Asked:
    """What a sum is for; both sides must mean the same.

    Parameters
    ----------
    round : int
    purpose : {"train", "evaluate"}
    model : str
        Hash of all that the clients were sent: of the plan, with that of the global change in it.
    cohort : tuple of str
        Everybody who was asked, in ascending order.
    """

    round: int
    purpose: str
    model: str
    cohort: tuple[str, ...]


class ClientEnd(Protocol):
    """One client's end."""

    def protect(self, asked: Asked, payload: Ring) -> bytes:
        """Return what the client sends instead of its payload."""

    def answer(self, stage: str, request: bytes) -> bytes:
        """Answer what the server asks to open the sum."""


class Collection(Protocol):
    """The server's end for one sum: takes what clients sent, asks on, opens the sum and nothing else."""

    @property
    def length(self) -> int:
        """Bytes that each client must send."""

    def add(self, client: str, data: bytes) -> None:
        """Take what a client sent."""

    def requests(self) -> tuple[str, dict[str, bytes]] | None:
        """Return the next stage and what to ask whom; None when the sum can be opened."""

    def answer(self, stage: str, client: str, data: bytes) -> None:
        """Take an answer."""

    def sum(self) -> tuple[NDArray[np.uint64], int]:
        """Return the sum modulo 2^bits and how many payloads it holds."""


class ServerEnd(Protocol):
    """The server's end for a run."""

    def present(self, clients: Sequence[str]) -> list[str]:
        """Return who of some clients may still take part."""

    def collect(self, asked: Asked, ring: RingCodec, length: int) -> Collection:
        """Begin one sum of payloads of so many coordinates."""


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


class PlainEnd:
    """No protection at all, on the client."""

    def protect(self, asked: Asked, payload: Ring) -> bytes:
        """Return the payload's bytes."""
        return payload.tobytes()

    def answer(self, stage: str, request: bytes) -> bytes:
        """Refuse: nothing is ever asked."""
        raise ProtocolError("stage", stage, "none, on the plain channel")


class PlainCollection:
    """A sum that the server could have read term by term."""

    def __init__(self, ring: RingCodec, length: int) -> None:
        self._opener, self._dtype = PlainOpener(ring, length), ring.dtype
        self.length = length * ring.dtype.itemsize

    def add(self, client: str, data: bytes) -> None:
        """Add one client's payload."""
        if len(data) != self.length:
            raise ProtocolError(f"payload of {client}", f"{len(data)} bytes", f"{self.length} bytes")
        self._opener.add(client, np.frombuffer(data, self._dtype))

    def requests(self) -> None:
        """Ask nothing."""
        return

    def answer(self, stage: str, client: str, data: bytes) -> None:
        """Refuse: nothing was asked."""
        raise ProtocolError(f"answer of {client}", stage, "none, on the plain channel")

    def sum(self) -> tuple[NDArray[np.uint64], int]:
        """Return the sum."""
        return self._opener.open(), self._opener.contributors


class PlainServer:
    """No protection at all, on the server."""

    def present(self, clients: Sequence[str]) -> list[str]:
        """Return all: nobody has certificates here."""
        return list(clients)

    def collect(self, asked: Asked, ring: RingCodec, length: int) -> PlainCollection:
        """Begin a sum."""
        return PlainCollection(ring, length)


CHANNELS = {
    "plain": "the server could read every update",
    "pairwise": "the server opens the sum of those who stayed, and nothing else",
}
"""What a scenario may name, and what the server then sees."""

SECURE = frozenset({"pairwise"})
"""Channels under which a rule that needs single updates is refused."""
