"""A share on its way from one client to another through the server: AES-256-GCM, read by nobody between.

Each key seals one message, so the nonce is zero; the associated data name the round, the sender and the receiver.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fedpeft.errors import ProtocolError
from fedpeft.secagg.pairwise.shamir import WIDTH
from fedpeft.signing.encoding import derive, enc

SEALED = WIDTH + 16
"""Bytes of a sealed share."""

_NONCE = bytes(12)


def seal(key: bytes, context: bytes, sender: str, receiver: str, share: bytes) -> bytes:
    """Encrypt a share under a pair's key of the round."""
    once = AESGCM(derive(key, "seal", context, sender, receiver))
    return once.encrypt(_NONCE, share, enc("sealed", context, sender, receiver))


def unseal(key: bytes, context: bytes, sender: str, receiver: str, sealed: bytes) -> bytes:
    """Decrypt a share.

    Raises
    ------
    ProtocolError
        When it was altered or is another's.
    """
    once = AESGCM(derive(key, "seal", context, sender, receiver))
    try:
        return once.decrypt(_NONCE, sealed, enc("sealed", context, sender, receiver))
    except InvalidTag as error:
        raise ProtocolError(f"sealed share of {sender}", sealed.hex()[:16], "what the sender sealed") from error
