"""Who may use which adapters: bearer tokens, of which only a hash is kept.

    fp-<id>-<secret>      id: 12 hexadecimal digits that find the entry;  secret: 256 random bits, base64url

A secret of 256 bits cannot be guessed, so one pass of SHA-256 is enough to store it; a slow hash is for what people
choose. Hashes are compared in constant time, against a dummy when there is no such entry.
"""

from __future__ import annotations

import os
import re
import secrets
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from hmac import compare_digest
from json import dumps, loads
from pathlib import Path

from fedpeft.device.folders import TRUST
from fedpeft.errors import ServeError
from fedpeft.files import private_folder

_TABLE = """
CREATE TABLE IF NOT EXISTS tokens (
    id TEXT PRIMARY KEY, hash BLOB NOT NULL, user TEXT NOT NULL, adapters TEXT NOT NULL, operator INTEGER NOT NULL,
    created TEXT NOT NULL
) STRICT
"""
_TOKEN = re.compile(r"fp-([0-9a-f]{12})-([A-Za-z0-9_-]{43})")
_NOBODY = bytes(32)


def tokens_file(run: Path) -> Path:
    """Return where a run keeps the hashes of its tokens."""
    return run / TRUST / "serve.sqlite"


@dataclass(frozen=True)
class Caller:
    """Whom a token stands for.

    Parameters
    ----------
    token_id : str
        Not secret; names the token in lists and logs.
    user : str
        Whose requests are counted together.
    adapters : frozenset of str
        What may be asked for.
    operator : bool
        May read the metrics.
    """

    token_id: str
    user: str
    adapters: frozenset[str]
    operator: bool = False


class TokenStore:
    """Tokens in an SQLite file that only its owner can read.

    Parameters
    ----------
    path : Path
        Made with the first token; without it nobody is known.

    Raises
    ------
    ServeError
        When the file can be read by others, or is no such store.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.exists():
            self._require_private()

    def add(self, user: str, adapters: frozenset[str], *, operator: bool = False) -> tuple[Caller, str]:
        """Make a token.

        Parameters
        ----------
        user : str
        adapters : frozenset of str
        operator : bool

        Returns
        -------
        caller : Caller
        token : str
            To be shown once; it cannot be read again.
        """
        private_folder(self._path.parent)
        if not self._path.exists():
            os.close(os.open(self._path, os.O_CREAT | os.O_WRONLY, 0o600))
        identity, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        caller = Caller(identity, user, adapters, operator)
        now = datetime.now(UTC).isoformat("T", "seconds")
        row = (identity, _hash(secret), user, dumps(sorted(adapters)), operator, now)
        with closing(self._open()) as store, store:
            store.execute(_TABLE)
            store.execute("INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?)", row)
        return caller, f"fp-{identity}-{secret}"

    def find(self, token: str) -> Caller | None:
        """Return whom a token stands for, or None."""
        match = _TOKEN.fullmatch(token)
        row = self._row(match[1]) if match else None
        same = compare_digest(row[0] if row else _NOBODY, _hash(match[2] if match else ""))
        return row[1] if row and same else None

    def entries(self) -> list[tuple[Caller, str]]:
        """Return all that tokens stand for, and when each was made."""
        if not self._path.exists():
            return []
        with closing(self._open()) as store:
            store.execute(_TABLE)
            rows = store.execute("SELECT id, user, adapters, operator, created FROM tokens ORDER BY rowid")
            return [(_caller(*row[:4]), row[4]) for row in rows]

    def revoke(self, identity: str) -> None:
        """Forget a token; requests with it are refused from now on, by a running service too.

        Raises
        ------
        ServeError
            When there is none.
        """
        known = [caller.token_id for caller, _ in self.entries()]
        if identity not in known:
            raise ServeError("token", identity, f"one of {', '.join(known) or 'none: there are no tokens'}")
        with closing(self._open()) as store, store:
            store.execute("DELETE FROM tokens WHERE id = ?", (identity,))

    def _row(self, identity: str) -> tuple[bytes, Caller] | None:
        if not self._path.exists():
            return None
        with closing(self._open()) as store:
            row = store.execute(
                "SELECT hash, id, user, adapters, operator FROM tokens WHERE id = ?", (identity,)
            ).fetchone()
        return (row[0], _caller(*row[1:])) if row else None

    def _open(self) -> sqlite3.Connection:
        self._require_private()
        try:
            store = sqlite3.connect(self._path, timeout=5)
            store.execute("SELECT name FROM sqlite_master")
        except sqlite3.DatabaseError as error:
            raise ServeError(f"tokens {self._path}", str(error), "an SQLite file", "move it away") from error
        return store

    def _require_private(self) -> None:
        mode = self._path.stat().st_mode & 0o777
        if os.name == "posix" and mode & 0o077:
            raise ServeError(f"tokens {self._path}", f"mode {mode:o}", "600", f"chmod 600 {self._path}")


def _caller(identity: str, user: str, adapters: str, operator: int) -> Caller:
    return Caller(identity, user, frozenset(loads(adapters)), bool(operator))


def _hash(secret: str) -> bytes:
    return sha256(secret.encode()).digest()
