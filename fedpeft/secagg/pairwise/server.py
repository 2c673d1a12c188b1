"""The server's side of ``pairwise``: who joined a run, and its rounds. It holds nothing that opens a single vector."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from fedpeft.errors import ProtocolError
from fedpeft.secagg.pairwise.context import RoundContext
from fedpeft.secagg.pairwise.peers import Entry
from fedpeft.secagg.pairwise.round import PairwiseRound
from fedpeft.secagg.trust.certificate import Revocations
from fedpeft.secagg.trust.manifest import Manifest
from fedpeft.signing.signature import SigningKey, public_bytes


class PairwiseServer:
    """One run.

    Parameters
    ----------
    manifest : Manifest
    key : SigningKey
        The server's, which the manifest names.
    authority : bytes
        The registry's public key.
    revoked : Revocations, optional
    clock : callable, optional
        Unix seconds.
    """

    def __init__(
        self,
        manifest: Manifest,
        key: SigningKey,
        authority: bytes,
        revoked: Revocations | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if manifest.server != public_bytes(key).hex():
            raise ProtocolError("manifest server", manifest.server[:16], "this server's public key")
        self.manifest, self._key, self._authority, self._clock = manifest, key, authority, clock
        self._revoked = Revocations()
        self.revoke(revoked or Revocations())
        self._entries: dict[str, Entry] = {}

    @property
    def joined(self) -> frozenset[str]:
        """The clients whose keys were accepted."""
        return frozenset(self._entries)

    def revoke(self, revoked: Revocations) -> None:
        """Take a revocation list; an older one than the last is left aside.

        Raises
        ------
        ProtocolError
            When the authority did not sign it.
        """
        revoked.check(self._authority, self.manifest.federation)
        if revoked.version >= self._revoked.version:
            self._revoked = revoked

    def require_current(self, client: str) -> None:
        """Refuse somebody whose certificate has expired or was revoked since they joined.

        Raises
        ------
        ProtocolError
        """
        self._entry(client).certificate.check_current(client, self._clock(), self._revoked)

    def join(self, client: str, keys: bytes) -> None:
        """Take a client's keys.

        Raises
        ------
        ProtocolError
            When they are not this client's, or it joined with others before.
        """
        entry = Entry.from_bytes(keys)
        entry.check(client, self.manifest, self._authority, self._clock(), self._revoked)
        known = self._entries.get(client)
        if known is not None and known.exchange != entry.exchange:
            raise ProtocolError(f"keys of {client}", "a second key in one run", "the key it joined with")
        self._entries[client] = entry

    def directory(self, clients: Sequence[str]) -> bytes:
        """Return the entries of some clients, in their order.

        Raises
        ------
        ProtocolError
            When one has not joined.
        """
        return b"".join(self._entry(client).to_bytes() for client in clients)

    def open_round(self, round_: int, purpose: str, model: str, cohort: Sequence[str]) -> PairwiseRound:
        """Begin a round with clients that have all joined.

        Raises
        ------
        ProtocolError
            When the manifest does not allow it, or somebody has not joined.
        """
        context = RoundContext.of(self.manifest, round_, purpose, model, cohort)
        keys = [self._entry(client).certificate.public for client in context.cohort]
        return PairwiseRound(context, keys, self._key)

    def _entry(self, client: str) -> Entry:
        if client not in self._entries:
            raise ProtocolError("client", client, "one that joined the run")
        return self._entries[client]
