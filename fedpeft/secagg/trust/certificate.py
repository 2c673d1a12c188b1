"""The registry: who may take part. Its key is not the server's.

A certificate says that an Ed25519 key belongs to a client of a federation until a date::

    certificate = public key (32) | expiry, unix seconds (8) | signature (64)
    signature of enc("certificate", federation, id, key, expiry)

The names are not in it: whoever checks one knows which federation and which client it must be for. A revocation list
names keys, not clients, so that a client whose phone was lost can be certified again; lists are numbered, and an older
one never replaces a newer one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from fedpeft.errors import ProtocolError
from fedpeft.signing.encoding import enc
from fedpeft.signing.nodekey import require_node_public
from fedpeft.signing.signature import PUBLIC, SIGNATURE, SigningKey, public_bytes, sign, verify

_EXPIRY = 8
CERTIFICATE = PUBLIC + _EXPIRY + SIGNATURE
"""Bytes of a certificate."""


@dataclass(frozen=True)
class Certificate:
    """A client's certified key.

    Parameters
    ----------
    public : bytes
    expiry : int
        Unix seconds.
    signature : bytes
        The authority's.
    """

    public: bytes
    expiry: int
    signature: bytes

    def to_bytes(self) -> bytes:
        """Return the :data:`CERTIFICATE` bytes that travel."""
        return self.public + self.expiry.to_bytes(_EXPIRY, "big") + self.signature

    @classmethod
    def from_bytes(cls, data: bytes) -> Certificate:
        """Read what :meth:`to_bytes` wrote; nothing is checked but the length."""
        if len(data) != CERTIFICATE:
            raise ProtocolError("certificate length", len(data), f"{CERTIFICATE} bytes")
        expiry = int.from_bytes(data[PUBLIC : PUBLIC + _EXPIRY], "big")
        return cls(data[:PUBLIC], expiry, data[PUBLIC + _EXPIRY :])

    def check(self, authority: bytes, federation: str, client: str, now: float, revoked: Revocations) -> None:
        """Refuse a certificate that is not this client's, not the authority's, expired or revoked.

        Raises
        ------
        ProtocolError
        """
        fields = (federation, client, self.public, self.expiry)
        verify(authority, self.signature, f"the authority for {client}", "certificate", *fields)
        self.check_current(client, now, revoked)

    def check_current(self, client: str, now: float, revoked: Revocations) -> None:
        """Refuse a certificate that was good once but is expired or revoked.

        Raises
        ------
        ProtocolError
        """
        if now >= self.expiry:
            raise ProtocolError(f"certificate of {client}", f"expired at {self.expiry}", f"one valid at {int(now)}")
        if self.public in revoked.keys:
            raise ProtocolError(f"certificate of {client}", "revoked", "one that is not on the revocation list")


@dataclass(frozen=True)
class Enrolment:
    """What a client hands to the registry, out of band: its key and a proof that it holds the secret half.

    Parameters
    ----------
    client : str
    public, proof : bytes
    node, node_proof : bytes
        The public key of the client's node, and the client's signature of it; empty where it has none.
    """

    client: str
    public: bytes
    proof: bytes
    node: bytes = b""
    node_proof: bytes = b""

    @classmethod
    def of(cls, client: str, federation: str, key: SigningKey, node: bytes = b"") -> Enrolment:
        """Ask for a certificate."""
        public = public_bytes(key)
        proof = sign(key, "enrol", federation, client, public)
        return cls(client, public, proof, node, sign(key, "node", federation, client, node) if node else b"")


@dataclass(frozen=True)
class Authority:
    """The registry authority, with its secret key.

    Parameters
    ----------
    federation : str
    key : SigningKey
    """

    federation: str
    key: SigningKey

    @classmethod
    def create(cls, federation: str) -> Authority:
        """Make an authority with a fresh key."""
        return cls(federation, SigningKey.generate())

    @property
    def public(self) -> bytes:
        """What every client pins."""
        return public_bytes(self.key)

    def certify(self, enrolment: Enrolment, expiry: int) -> Certificate:
        """Certify a client's key until ``expiry`` (unix seconds).

        Raises
        ------
        ProtocolError
            When the client has not shown that it holds the key.
        """
        client, public = enrolment.client, enrolment.public
        verify(public, enrolment.proof, client, "enrol", self.federation, client, public)
        if enrolment.node:
            node = require_node_public(enrolment.node)
            verify(public, enrolment.node_proof, client, "node", self.federation, client, node)
        signature = sign(self.key, "certificate", self.federation, client, public, expiry)
        return Certificate(public, expiry, signature)

    def revoke(self, version: int, keys: Iterable[bytes]) -> Revocations:
        """Sign a list of all keys revoked so far."""
        revoked = frozenset(keys)
        signature = sign(self.key, "revocations", self.federation, version, enc("keys", *sorted(revoked)))
        return Revocations(version, revoked, signature)


@dataclass(frozen=True)
class Revocations:
    """The keys that are no longer to be trusted.

    Parameters
    ----------
    version : int
        0 for the empty list that needs no signature.
    keys : frozenset of bytes
    signature : bytes
    """

    version: int = 0
    keys: frozenset[bytes] = frozenset()
    signature: bytes = b""

    def check(self, authority: bytes, federation: str) -> None:
        """Refuse a list that the authority did not sign.

        Raises
        ------
        ProtocolError
        """
        if self != Revocations():
            listed = enc("keys", *sorted(self.keys))
            verify(authority, self.signature, "the authority", "revocations", federation, self.version, listed)

    def to_bytes(self) -> bytes:
        """Return the list as JSON."""
        keys = sorted(key.hex() for key in self.keys)
        return json.dumps({"version": self.version, "keys": keys, "signature": self.signature.hex()}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Revocations:
        """Read a list; whose it is, :meth:`check` says."""
        try:
            fields = json.loads(data)
            keys = frozenset(bytes.fromhex(key) for key in fields["keys"])
            return cls(int(fields["version"]), keys, bytes.fromhex(fields["signature"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ProtocolError("revocation list", str(error)[:80], "JSON with version, keys and signature") from error
