"""What the parties of a round sign, and checking many signatures of one statement."""

from __future__ import annotations

from collections.abc import Sequence

from fedpeft.errors import ProtocolError
from fedpeft.signing.signature import verify

CONTRIBUTE, SURVIVORS, REVEAL, LOCK, UNMASK = "contribute", "survivors", "reveal", "lock", "unmask"
"""A client: this vector and these shares are mine; these are left; these seeds, this promise, these shares are mine."""

REQUEST = "request"
"""The server: this is what I ask; two requests that contradict each other convict it."""


def check_all(
    statement: str,
    context: bytes,
    bitmap: bytes,
    names: Sequence[str],
    keys: Sequence[bytes | None],
    signatures: Sequence[bytes],
) -> None:
    """Check that clients signed a statement about a set.

    Parameters
    ----------
    statement : str
    context : bytes
        ctx.
    bitmap : bytes
    names : sequence of str
    keys : sequence of bytes, optional
        Their public keys; None leaves one out.
    signatures : sequence of bytes

    Raises
    ------
    ProtocolError
        Naming the first who did not, or when there are fewer signatures than clients.
    """
    if len(signatures) != len(names):
        raise ProtocolError(f"signatures on {statement}", len(signatures), f"{len(names)}")
    for name, key, signature in zip(names, keys, signatures, strict=True):
        if key is not None:
            verify(key, signature, name, statement, context, bitmap)
