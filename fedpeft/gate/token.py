"""What an operator hands to a person: where the gate is, how to know it, who they will be, and a secret.

::

    token    = base64url(body | sha256(body)[:4])
    body     = version (1) | authority (32) | id (6) | secret (18) | gate, a zero, client (UTF-8)

``authority`` is the sha256 of the TLS authority's certificate, so the gate is verified before the secret leaves the
device. The last four bytes tell a slip of the pen from a token that is refused. The secret has 144 random bits.
"""

from __future__ import annotations

import binascii
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from hashlib import sha256

from fedpeft.address import is_address
from fedpeft.errors import TokenError

ID, SECRET = 6, 18
"""Bytes of what finds a token and of what proves that one has it."""

_VERSION = 1
_AUTHORITY, _CHECK = 32, 4
_FIXED = 1 + _AUTHORITY + ID + SECRET
_LONGEST = 1024


@dataclass(frozen=True)
class Token:
    """A token.

    Parameters
    ----------
    gate : str
        ``host:port``.
    authority : bytes
        The sha256 of the certificate in ``ca.pem``, in DER.
    client : str
        Whom it enrols.
    id : bytes
        Not secret.
    secret : bytes
    """

    gate: str
    authority: bytes
    client: str
    id: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def fresh(cls, gate: str, authority: bytes, client: str) -> Token:
        """Make a token with a new secret."""
        id_, secret = secrets.token_bytes(ID), secrets.token_bytes(SECRET)
        return cls(require_address("gate", gate), authority, client, id_, secret)

    def __str__(self) -> str:
        """Return what is handed over."""
        head = bytes([_VERSION]) + self.authority + self.id + self.secret
        body = head + self.gate.encode() + b"\0" + self.client.encode()
        return urlsafe_b64encode(body + sha256(body).digest()[:_CHECK]).decode("ascii").rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Token:
        """Read a token.

        Raises
        ------
        TokenError
            When it is none, or not whole; the error does not repeat it.
        """
        text = "".join(text.split())
        try:
            data = urlsafe_b64decode(text + "=" * (-len(text) % 4)) if len(text) <= _LONGEST else b""
        except (binascii.Error, ValueError):
            data = b""
        body, check = data[:-_CHECK], data[-_CHECK:]
        gate, zero, client = body[_FIXED:].partition(b"\0")
        if len(data) <= _FIXED or sha256(body).digest()[:_CHECK] != check or body[0] != _VERSION or not zero:
            remedy = "copy it again, all of it, from what `fedpeft server token` printed"
            raise TokenError("token", f"{len(text)} characters", "a whole token of this version", remedy)
        at = 1 + _AUTHORITY
        try:
            address, name = require_address("token gate", gate.decode("ascii")), client.decode()
        except UnicodeDecodeError as error:
            raise TokenError("token", "no text where names belong", "a token of this version") from error
        return cls(address, body[1:at], name, body[at : at + ID], body[at + ID : _FIXED])


def require_address(field: str, address: str) -> str:
    """Refuse what is no ``host:port``.

    Raises
    ------
    TokenError
    """
    if not is_address(address):
        raise TokenError(field, address, "host:port, such as fed.example.org:8001")
    return address
