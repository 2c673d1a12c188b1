"""Ed25519 signatures (RFC 8032) over canonical encodings."""

from __future__ import annotations

from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedpeft.errors import ProtocolError
from fedpeft.signing.encoding import Field, enc

SIGNATURE, PUBLIC = 64, 32
"""Bytes of a signature and of a public key."""

SigningKey = Ed25519PrivateKey


def sign(key: SigningKey, label: str, *fields: Field) -> bytes:
    """Sign an encoding."""
    return key.sign(enc(label, *fields))


def verify(public: bytes, signature: bytes, signer: str, label: str, *fields: Field) -> None:
    """Refuse a signature that is not the signer's.

    Parameters
    ----------
    public : bytes
        The signer's public key.
    signature : bytes
    signer : str
        For the message of the error.
    label, fields
        What must have been signed.

    Raises
    ------
    ProtocolError
        When it was made by another key or for anything else.
    """
    try:
        _verify(public, signature, enc(label, *fields))
    except (InvalidSignature, ValueError) as error:
        raise ProtocolError(f"signature of {signer} on {label}", signature.hex()[:16], "one that verifies") from error


@lru_cache(maxsize=4096)
def _verify(public: bytes, signature: bytes, message: bytes) -> None:
    """Verify once: a process that serves many clients is shown the same signatures by each; errors are not kept."""
    Ed25519PublicKey.from_public_bytes(public).verify(signature, message)


def public_bytes(key: SigningKey) -> bytes:
    """Return the 32 bytes of the public half."""
    return key.public_key().public_bytes_raw()
