"""Every message's exact length, so that a transport refuses before it reads and a reader only ever slices.

Sizes in bytes; n clients in the cohort, h holders, U survivors, m neighbours outside U not yet given up, L locks::

    stage        to the client                                    from the client
    keys         –                                                certificate 104 | X25519 32 | signature 64
    directory    200 for each client                              –
    contribute   –                                                y ⌈d·bits/8⌉ | commitment 32 | 32 h | signature 64
    survivors    bitmap | signature 64                            signature 64 [| 32 m | signature 64], m at first only
    pairs        bitmap | 64 |U| | signature 64                   32 m | signature 64
    lock         bitmap | 64 |U| | signature 64                   signature 64
    unmask       bitmap | 64 L | 32 |wards in U| | signature 64   16 |wards in U| | signature 64
"""

from __future__ import annotations

from collections.abc import Iterable

from fedpeft.errors import ProtocolError
from fedpeft.secagg.pairwise.context import RoundContext
from fedpeft.secagg.pairwise.members import bitmap_size
from fedpeft.secagg.pairwise.packing import packed_size
from fedpeft.secagg.pairwise.seal import SEALED
from fedpeft.secagg.pairwise.shamir import WIDTH
from fedpeft.secagg.trust.certificate import CERTIFICATE
from fedpeft.signing.encoding import KEY
from fedpeft.signing.signature import PUBLIC, SIGNATURE

STAGES = ("survivors", "pairs", "lock", "unmask")
"""What the server asks after the contributions; ``pairs`` only when somebody vanished while survivors were counted."""

ENTRY = CERTIFICATE + PUBLIC + SIGNATURE
"""Bytes of a ``keys`` message and of an entry of the directory."""


def contribution_length(context: RoundContext) -> int:
    """Return the bytes of a contribution."""
    return packed_size(context.length, context.terms.bits) + handshake_length(context)


def handshake_length(context: RoundContext) -> int:
    """Return the bytes of a contribution without the masked vector."""
    return KEY + context.parameters.holders * SEALED + SIGNATURE


def request_length(stage: str, context: RoundContext, survivors: int, wards: int = 0) -> int:
    """Return the bytes of a request, from the number of survivors and of those whose shares the client holds."""
    inner = {
        "survivors": 0,
        "pairs": SIGNATURE * survivors,
        "lock": SIGNATURE * survivors,
        "unmask": SIGNATURE * context.quorum(survivors) + SEALED * wards,
    }[stage]
    return bitmap_size(len(context.cohort)) + inner + SIGNATURE


def reply_length(stage: str, seeds: int = 0, wards: int = 0) -> int:
    """Return the bytes of a reply, from the number of seeds given up or of shares opened."""
    if stage == "survivors":
        return SIGNATURE + (KEY * seeds + SIGNATURE if seeds else 0)
    return {"pairs": KEY * seeds, "lock": 0, "unmask": WIDTH * wards}[stage] + SIGNATURE


def require_length(name: str, message: bytes | memoryview, length: int) -> None:
    """Refuse a message of any other length.

    Raises
    ------
    ProtocolError
    """
    if len(message) != length:
        raise ProtocolError(f"{name} length", len(message), f"{length} bytes")


def split(data: bytes, *sizes: int) -> list[bytes]:
    """Cut a message whose length is right into its parts."""
    parts, start = [], 0
    for size in sizes:
        parts.append(data[start : start + size])
        start += size
    return parts


def pieces(data: bytes, size: int) -> list[bytes]:
    """Cut into parts of one size."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def joined(parts: Iterable[bytes]) -> bytes:
    """Put parts together."""
    return b"".join(parts)
