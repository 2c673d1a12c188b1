"""What a client is shown when a session begins: the operator's manifest, and the authority's list of revoked keys.

::

    invitation = length of the manifest (4) | signed manifest | revocation list

The manifest names the number of the list, so everybody in a session refuses the same keys: a server can neither keep a
list back nor show different ones to different clients without the operator's signature.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedpeft.errors import ProtocolError
from fedpeft.secagg.trust.certificate import Revocations
from fedpeft.secagg.trust.manifest import LIMIT, SignedManifest
from fedpeft.signing.signature import SIGNATURE

_LENGTH = 4
_LIST = 1 << 20

LONGEST = _LENGTH + SIGNATURE + LIMIT + _LIST
"""Bytes that an invitation may have: a list of some 15,000 keys."""


@dataclass(frozen=True)
class Invitation:
    """An invitation to a session.

    Parameters
    ----------
    manifest : bytes
        With the operator's signature.
    revoked : Revocations
    """

    manifest: bytes
    revoked: Revocations

    @classmethod
    def of(cls, manifest: SignedManifest, revoked: Revocations) -> Invitation:
        """Invite to what a manifest says."""
        return cls(manifest.to_bytes(), revoked)

    def to_bytes(self) -> bytes:
        """Return the bytes that travel.

        Raises
        ------
        ProtocolError
            When the list is longer than a client would read.
        """
        listed = self.revoked.to_bytes()
        if len(listed) > _LIST:
            raise ProtocolError("revocation list", f"{len(listed)} bytes", f"at most {_LIST}")
        return len(self.manifest).to_bytes(_LENGTH, "big") + self.manifest + listed

    @classmethod
    def from_bytes(cls, data: bytes) -> Invitation:
        """Cut an invitation up; who signed its parts is not looked at here.

        Raises
        ------
        ProtocolError
            When it is no invitation.
        """
        end = _LENGTH + int.from_bytes(data[:_LENGTH], "big")
        if not _LENGTH < end < len(data) <= LONGEST:
            raise ProtocolError("invitation", f"{len(data)} bytes", "a manifest and a revocation list")
        return cls(data[_LENGTH:end], Revocations.from_bytes(data[end:]))
