r"""One canonical encoding for everything that is hashed, signed, derived from or authenticated.

::

    enc(label, f_1 … f_m) = "fedpeft-sa/v1" | u32 |label| | label | u32 m | u32 |f_1| | f_1 | … | u32 |f_m| | f_m

Every field has its length in front and the number of fields comes first, so two different lists never give the same
bytes, and the label keeps the uses apart: a signature made for one purpose says nothing in another. Keys are derived
by HKDF-SHA256 (RFC 5869) with such an encoding as its info.
"""

from __future__ import annotations

from hashlib import sha256

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

PROTOCOL = b"fedpeft-sa/v1"
KEY = 32
"""Bytes of a derived key and of a digest."""

Field = bytes | str | int


def enc(label: str, *fields: Field) -> bytes:
    """Encode a label and fields; integers are unsigned, 8 bytes, big-endian."""
    name = label.encode()
    parts = [PROTOCOL, len(name).to_bytes(4, "big"), name, len(fields).to_bytes(4, "big")]
    for value in fields:
        data = (
            value.to_bytes(8, "big") if isinstance(value, int) else value.encode() if isinstance(value, str) else value
        )
        parts += [len(data).to_bytes(4, "big"), data]
    return b"".join(parts)


def digest(label: str, *fields: Field) -> bytes:
    """Return the SHA-256 of an encoding."""
    return sha256(enc(label, *fields)).digest()


def derive(key: bytes, label: str, *fields: Field) -> bytes:
    """Derive a key from one that is already uniform: the expand step of HKDF."""
    return HKDFExpand(SHA256(), KEY, enc(label, *fields)).derive(key)


def extract(secret: bytes, label: str, *fields: Field) -> bytes:
    """Derive a key from a Diffie-Hellman result, which is not uniform: both steps of HKDF."""
    return HKDF(SHA256(), KEY, PROTOCOL, enc(label, *fields)).derive(secret)
