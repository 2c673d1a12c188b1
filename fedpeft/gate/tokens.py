"""The tokens of a registry: who was invited, until when, and which key has made use of it.

Only a secret's hash is kept. A token is bound to its client's name, holds until a moment, and is good for one key: the
first that comes. That key may come again and gets the certificate that it got, so an answer that was lost is no
device that is lost. Whatever else is wrong with a token is one and the same refusal.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest

from fedpeft.device.folders import require_client
from fedpeft.errors import ProtocolError, TokenError, nearest
from fedpeft.gate.token import Token
from fedpeft.secagg.trust.certificate import Certificate, Enrolment
from fedpeft.secagg.trust.registry import Registry

_TABLE = """
CREATE TABLE IF NOT EXISTS tokens (
    id TEXT PRIMARY KEY, hash BLOB NOT NULL, client TEXT NOT NULL, expiry INTEGER NOT NULL, used_by BLOB
) STRICT
"""
_NOBODY = bytes(32)
_HOUR = 3600


@dataclass(frozen=True)
class Invitation:
    """A token, as its registry knows it.

    Parameters
    ----------
    id : str
        Not secret; names it in lists.
    client : str
    expiry : int
        Unix seconds.
    used : bool
    """

    id: str
    client: str
    expiry: int
    used: bool


class Tokens:
    """The tokens in a registry's database.

    Parameters
    ----------
    registry : Registry
    clock : callable
        Seconds since 1970.
    """

    def __init__(self, registry: Registry, clock: Callable[[], float] = time.time) -> None:
        self._registry, self._clock = registry, clock
        with registry.writing() as store:
            store.execute(_TABLE)

    def issue(self, client: str, gate: str, authority: bytes, hours: float) -> Token:
        """Make a token for a client; their other unused ones are void.

        Parameters
        ----------
        client : str
        gate : str
            ``host:port``, as devices reach it.
        authority : bytes
            The sha256 of the TLS authority's certificate.
        hours : float
            How long it holds.

        Raises
        ------
        DataError
            When the name cannot be a client's.
        """
        token = Token.fresh(gate, authority, require_client(client))
        row = (token.id.hex(), _hash(token.secret), client, int(self._clock() + hours * _HOUR))
        with self._registry.writing() as store:
            store.execute("DELETE FROM tokens WHERE client = ? AND used_by IS NULL", (client,))
            store.execute("INSERT INTO tokens (id, hash, client, expiry) VALUES (?, ?, ?, ?)", row)
        return token

    def redeem(self, id_: bytes, secret: bytes, enrolment: Enrolment, days: int) -> Certificate:
        """Certify the key of whoever has a token; the same key gets the same certificate again.

        Raises
        ------
        TokenError
            When there is no such token, it is another client's, has expired or was used by another key.
        ProtocolError
            When the request is not signed by its key, or that key was revoked.
        """
        now = int(self._clock())
        with self._registry.writing() as store:
            found = store.execute(
                "SELECT hash, client, expiry, used_by FROM tokens WHERE id = ?", (id_.hex(),)
            ).fetchone()
            kept, client, expiry, used_by = found or (_NOBODY, "", 0, None)
            genuine = compare_digest(kept, _hash(secret)) and client == enrolment.client
            if not genuine or (used_by is None and now >= expiry) or used_by not in (None, enrolment.public):
                raise TokenError("token", "refused", "one that is unused and still holds", "ask for a new one")
            certificate = self._again(store, enrolment) if used_by else None
            if certificate is None:
                certificate = self._registry.issue(store, enrolment, now + days * 24 * _HOUR)
                store.execute("UPDATE tokens SET used_by = ? WHERE id = ?", (enrolment.public, id_.hex()))
        return certificate

    def entries(self) -> list[Invitation]:
        """Return all tokens, by client."""
        with self._registry.writing() as store:
            rows = store.execute("SELECT id, client, expiry, used_by IS NOT NULL FROM tokens ORDER BY client, expiry")
            return [Invitation(id_, client, expiry, bool(used)) for id_, client, expiry, used in rows]

    def revoke(self, which: str) -> int:
        """Make a token void: one by its id, or all of a client's; return how many. Certificates are not touched.

        Raises
        ------
        ProtocolError
            When there is none.
        """
        with self._registry.writing() as store:
            gone = store.execute("DELETE FROM tokens WHERE id = ? OR client = ?", (which, which)).rowcount
        if not gone:
            known = sorted({name for entry in self.entries() for name in (entry.id, entry.client)})
            raise ProtocolError("token", which, "an id or a client's name", nearest(which, known))
        return gone

    def _again(self, store: sqlite3.Connection, enrolment: Enrolment) -> Certificate | None:
        """Sign what was signed before; the same date and key make the same signature."""
        row = store.execute("SELECT expiry FROM issued WHERE public = ?", (enrolment.public,)).fetchone()
        return self._registry.issue(store, enrolment, row[0]) if row else None


def _hash(secret: bytes) -> bytes:
    return sha256(secret).digest()
