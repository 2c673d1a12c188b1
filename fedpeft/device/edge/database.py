"""The SQLite file below a local store: several processes at once, and one clear line for all that can go wrong.

A write-ahead log lets readers and writers work side by side; writers take turns. Every commit is on the disk when it
returns. Deleted content is overwritten with zeros (``secure_delete``) and the log is emptied after a deletion.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import uuid4

from fedpeft.device.edge.example import VERSION
from fedpeft.errors import StoreError
from fedpeft.files import private_folder

_PATIENCE = 30.0
_TABLES = """
CREATE TABLE examples (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, time REAL NOT NULL, size INTEGER NOT NULL, sealed BLOB NOT NULL
) STRICT;
CREATE INDEX by_time ON examples (time, size);
CREATE TABLE state (
    store TEXT NOT NULL, consent INTEGER NOT NULL, keychain TEXT NOT NULL, key TEXT NOT NULL, proof BLOB NOT NULL,
    retired TEXT NOT NULL
) STRICT;
"""


class Database:
    """A store's file. Threads and processes may share it; each transaction opens a connection of its own.

    Parameters
    ----------
    path : Path
        Made when missing, for its owner only; so is its folder.

    Raises
    ------
    StoreError
        When it cannot be opened, is damaged, or is of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            private_folder(path.parent)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            raise StoreError(f"store {path}", error.strerror, "a place for the store") from error
        with self.writing() as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                _create(connection)
            elif version != VERSION:
                remedy = "update fedpeft, or open it with the version that made it"
                raise StoreError(f"store {path} version", version, str(VERSION), remedy)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection that sees one state of the store, whatever others write meanwhile."""
        with self._translated(), closing(self._connect()) as connection:
            connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection whose changes all happen when the block ends well, and else none."""
        with self._translated(), closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def sweep(self) -> None:
        """Empty the log, so that what was deleted is in no file of the store."""
        with self._translated(), closing(self._connect()) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def rebuild(self) -> None:
        """Write the file anew without what was deleted."""
        with self._translated(), closing(self._connect()) as connection:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA secure_delete = ON")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"store {self.path}", str(error), *_advice(error)) from error


def _create(connection: sqlite3.Connection) -> None:
    for statement in _TABLES.split(";"):
        connection.execute(statement)
    connection.execute("INSERT INTO state VALUES (?, 0, '', '', x'', '')", (uuid4().hex,))
    connection.execute(f"PRAGMA user_version = {VERSION}")


def _advice(error: sqlite3.Error) -> tuple[str, str]:
    """Return what was expected, and what to do."""
    name = getattr(error, "sqlite_errorname", "")
    if name in ("SQLITE_FULL", "SQLITE_TOOBIG") or name.startswith("SQLITE_IOERR"):
        return "room and a disk that works", "nothing was changed: free some space and try again"
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return f"its lock within {_PATIENCE:.0f} seconds", "nothing was changed: another process holds it, try again"
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return "a file that can be written", "make it and its folder writable for this account"
    remedy = "it is left as it is: restore a backup, or move it away to begin a new one"
    return "an undamaged store", remedy
