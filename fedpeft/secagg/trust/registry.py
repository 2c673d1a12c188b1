"""The registry of a federation: its authority's key, whom it certified until when, and who was revoked.

==========================  ==================================================================
``authority.pem``           the secret key, mode 600; it belongs on no machine that aggregates
``registry.sqlite``         every certificate that was issued, and the keys of clients' nodes
``revocations.json``        the signed list of revoked keys, for the server and for clients
==========================  ==================================================================
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fedpeft.errors import ProtocolError, RunError, nearest
from fedpeft.files import write_private, write_whole
from fedpeft.secagg.trust.certificate import Authority, Certificate, Enrolment, Revocations
from fedpeft.secagg.trust.enrolling import Pinned
from fedpeft.signing.keyfile import own_key, read_key, require_free, write_key
from fedpeft.signing.signature import SigningKey, public_bytes

REGISTRY, OPERATOR = "registry", "operator.pem"
_KEY, _ISSUED, _REVOKED = "authority.pem", "registry.sqlite", "revocations.json"
_TABLES = """
CREATE TABLE IF NOT EXISTS federation (name TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS issued (
    public BLOB PRIMARY KEY, client TEXT NOT NULL, expiry INTEGER NOT NULL, revoked INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS nodes (public BLOB PRIMARY KEY, client TEXT NOT NULL) STRICT;
"""
_ADMITTED = """
SELECT DISTINCT nodes.public, nodes.client FROM nodes JOIN issued ON nodes.client = issued.client
WHERE NOT issued.revoked AND issued.expiry > ?
"""
_CENSUS = """
SELECT client, MAX(CASE WHEN revoked THEN 0 ELSE expiry END), MAX(revoked) FROM issued GROUP BY client
"""


@dataclass(frozen=True)
class Entry:
    """A certificate that was issued.

    Parameters
    ----------
    client : str
    public : bytes
    expiry : int
        Unix seconds.
    revoked : bool
    """

    client: str
    public: bytes
    expiry: int
    revoked: bool


class Registry:
    """An authority and what it issued.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    ProtocolError
        When there is no registry, or others can read its key.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        if not (folder / _ISSUED).is_file():
            raise ProtocolError("registry", str(folder), "a registry's folder", "make one with `fedpeft server init`")
        with self._open() as store:
            store.executescript(_TABLES)
            (name,) = store.execute("SELECT name FROM federation").fetchone()
        self.authority = Authority(str(name), read_key(folder / _KEY))

    @classmethod
    def create(cls, folder: Path, federation: str) -> Registry:
        """Make a registry with a new key.

        Raises
        ------
        ProtocolError
            When there is one already: its key is never overwritten.
        """
        write_key(folder / _KEY, SigningKey.generate())
        write_private(folder / _ISSUED, b"")
        with closing(sqlite3.connect(folder / _ISSUED)) as store, store:
            store.executescript(_TABLES)
            store.execute("INSERT INTO federation VALUES (?)", (federation,))
        write_whole(folder / _REVOKED, Revocations().to_bytes())
        return cls(folder)

    def certify(self, enrolment: Enrolment, expiry: int) -> Certificate:
        """Certify a client's key and remember it.

        Raises
        ------
        ProtocolError
            When the client has not shown that it holds the key, or the key was revoked.
        """
        with self.writing() as store:
            return self.issue(store, enrolment, expiry)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Change the registry, all or nothing, while nobody else does."""
        with self._open() as store:
            store.execute("BEGIN IMMEDIATE")
            yield store

    def issue(self, store: sqlite3.Connection, enrolment: Enrolment, expiry: int) -> Certificate:
        """Certify within a change that :meth:`writing` began; see :meth:`certify`."""
        certificate = self.authority.certify(enrolment, expiry)
        if enrolment.public in self.revocations().keys:
            raise ProtocolError(
                f"key of {enrolment.client}", "revoked", "a new one", "ask with another --identity folder"
            )
        row = (enrolment.public, enrolment.client, expiry)
        store.execute("INSERT OR REPLACE INTO issued (public, client, expiry) VALUES (?, ?, ?)", row)
        if enrolment.node:
            self._keep_node(store, enrolment)
        return certificate

    def _keep_node(self, store: sqlite3.Connection, enrolment: Enrolment) -> None:
        found = store.execute("SELECT client FROM nodes WHERE public = ?", (enrolment.node,)).fetchone()
        if found is not None and found[0] != enrolment.client:
            raise ProtocolError(f"node key of {enrolment.client}", f"that of {found[0]}", "a key of its own")
        store.execute("INSERT OR REPLACE INTO nodes VALUES (?, ?)", (enrolment.node, enrolment.client))

    def revoke(self, client: str) -> Revocations:
        """Revoke all keys of a client; a new one of theirs can be certified again.

        Raises
        ------
        ProtocolError
            When nothing was issued to them.
        """
        known = {entry.client for entry in self.entries()}
        if client not in known:
            raise ProtocolError("client", client, "one with a certificate", nearest(client, sorted(known)))
        with self._open() as store:
            store.execute("UPDATE issued SET revoked = 1 WHERE client = ?", (client,))
            store.execute("DELETE FROM nodes WHERE client = ?", (client,))
        keys = [entry.public for entry in self.entries() if entry.revoked]
        listed = self.authority.revoke(self.revocations().version + 1, keys)
        write_whole(self._folder / _REVOKED, listed.to_bytes())
        return listed

    def revocations(self) -> Revocations:
        """Return the current list.

        Raises
        ------
        ProtocolError
            When it is not the authority's.
        """
        listed = Revocations.from_bytes((self._folder / _REVOKED).read_bytes())
        listed.check(self.authority.public, self.authority.federation)
        return listed

    def entries(self) -> list[Entry]:
        """Return what was issued, by client."""
        with self._open() as store:
            rows = store.execute("SELECT client, public, expiry, revoked FROM issued ORDER BY client, expiry")
            return [Entry(client, public, expiry, bool(revoked)) for client, public, expiry, revoked in rows]

    def _open(self) -> AbstractContextManager[sqlite3.Connection]:
        return _opened(self._folder)


def admitted(folder: Path, now: float) -> dict[bytes, str]:
    """Return which nodes a SuperLink is to admit: client by public node key. The authority's key is not needed.

    Raises
    ------
    ProtocolError
        When the folder holds no registry.
    """
    if not (folder / _ISSUED).is_file():
        raise ProtocolError("registry", str(folder), "a registry's folder", "make one with `fedpeft server init`")
    with _opened(folder) as store:
        return {bytes(public): str(client) for public, client in store.execute(_ADMITTED, (int(now),))}


@dataclass(frozen=True)
class Census:
    """How many clients a registry knows.

    Parameters
    ----------
    enrolled : int
        With a certificate that holds.
    expiring : tuple of str
        Those of them whose last certificate ends soon, in order.
    expired : int
        Without a certificate that holds, and none of theirs was revoked.
    revoked : int
        Without a certificate that holds, and one of theirs was revoked.
    """

    enrolled: int
    expiring: tuple[str, ...]
    expired: int
    revoked: int


def census(folder: Path, now: float, soon: float) -> Census:
    """Count clients, each once.

    Parameters
    ----------
    folder : Path
        The registry's; the authority's key need not be there.
    now, soon : float
        Unix seconds; who expires before ``soon`` expires soon.
    """
    with _opened(folder) as store:
        rows = store.execute(_CENSUS).fetchall()
    holding = {str(client): until for client, until, _ in rows if until > now}
    gone = [bool(revoked) for client, until, revoked in rows if until <= now]
    expiring = sorted(client for client, until in holding.items() if until <= soon)
    return Census(len(holding), tuple(expiring), gone.count(False), gone.count(True))


def revoked(folder: Path, pinned: Pinned) -> Revocations:
    """Return the signed list of revoked keys; the authority's key is not needed.

    Raises
    ------
    ProtocolError
        When there is none, or it is not the authority's.
    """
    path = folder / _REVOKED
    try:
        return _listed(path, path.stat().st_mtime_ns, pinned)
    except OSError as error:
        raise ProtocolError(f"revocation list {path}", error.strerror, "the registry's list") from error


# A server asks for every client of every round; a list is read and verified when there is another one.
@lru_cache(maxsize=4)
def _listed(path: Path, written: int, pinned: Pinned) -> Revocations:
    listed = Revocations.from_bytes(path.read_bytes())
    listed.check(pinned.authority, pinned.federation)
    return listed


@contextmanager
def _opened(folder: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(folder / _ISSUED, timeout=5)) as store, store:
            yield store
    except sqlite3.OperationalError as error:
        raise RunError(f"registry {folder}", str(error), "one that nobody else is writing", "try again") from error
    except sqlite3.DatabaseError as error:
        raise ProtocolError(f"registry {folder}", str(error), "a registry's database") from error


def found_federation(folder: Path, federation: str, operator: Path) -> Pinned:
    """Make a federation's keys, and say what its clients pin.

    Parameters
    ----------
    folder : Path
        ``registry/`` is made in it.
    federation : str
    operator : Path
        The folder for ``operator.pem``.

    Raises
    ------
    ProtocolError
        When there is one of these keys already; then neither is made.
    """
    registry, key = folder / REGISTRY, operator / OPERATOR
    require_free(key)
    authority = Registry.create(registry, federation).authority
    return Pinned(federation, authority.public, public_bytes(own_key(key)))
