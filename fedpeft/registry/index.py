"""The index of a shelf: every version and every head that was ever signed, in SQLite.

One writer at a time; who writes holds the lock from before its first look until all is on the disk. The numbers of
heads come from here, so the index is what must not be lost; what is, is read again from the signed files.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from fedpeft.errors import ShelfError

_FORMAT = 1
_PATIENCE = 600.0
_TABLES = """
CREATE TABLE IF NOT EXISTS versions (id TEXT PRIMARY KEY, record BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS heads (
    channel TEXT NOT NULL, number INTEGER NOT NULL, record BLOB NOT NULL, PRIMARY KEY (channel, number)
) STRICT;
"""


class Index:
    """A shelf's database.

    Parameters
    ----------
    path : Path
        Made when missing.

    Raises
    ------
    ShelfError
        When it cannot be opened, is damaged, or is of another format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self.writing() as held:
            (found,) = held.connection.execute("PRAGMA user_version").fetchone()
            if found not in (0, _FORMAT):
                raise ShelfError(f"index {path} format", found, str(_FORMAT), "update fedpeft")
            for statement in _TABLES.split(";"):
                held.connection.execute(statement)
            held.connection.execute(f"PRAGMA user_version = {_FORMAT}")

    @contextmanager
    def writing(self) -> Iterator[Changes]:
        """Hold the shelf; what was changed is kept when the block ends well, and else nothing.

        Yields
        ------
        Changes
        """
        with self._opened() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield Changes(connection)
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    @contextmanager
    def reading(self) -> Iterator[Changes]:
        """Look at one state of the shelf."""
        with self._opened() as connection:
            connection.execute("BEGIN")
            yield Changes(connection)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)) as connection:
                connection.execute("PRAGMA synchronous = FULL")
                yield connection
        except sqlite3.Error as error:
            remedy = "move a damaged one away: it is read again from the signed files"
            raise ShelfError(f"index {self.path}", str(error), "an index that works, and room", remedy) from error


class Changes:
    """What can be read and written while the index is held."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def versions(self) -> list[bytes]:
        """Return all versions as they were signed, in the order of their coming."""
        return [row[0] for row in self.connection.execute("SELECT record FROM versions ORDER BY rowid")]

    def version(self, id_: str) -> bytes | None:
        """Return one of them."""
        row = self.connection.execute("SELECT record FROM versions WHERE id = ?", (id_,)).fetchone()
        return row[0] if row else None

    def heads(self, channel: str) -> list[bytes]:
        """Return a channel's heads as they were signed, the last one first."""
        ordered = "SELECT record FROM heads WHERE channel = ? ORDER BY number DESC"
        return [row[0] for row in self.connection.execute(ordered, (channel,))]

    def channels(self) -> list[str]:
        """Return the names of all channels."""
        return [row[0] for row in self.connection.execute("SELECT DISTINCT channel FROM heads ORDER BY channel")]

    def add_version(self, id_: str, record: bytes) -> None:
        """Add a version."""
        self.connection.execute("INSERT OR IGNORE INTO versions VALUES (?, ?)", (id_, record))

    def add_head(self, channel: str, number: int, record: bytes) -> None:
        """Add a head."""
        self.connection.execute("INSERT OR IGNORE INTO heads VALUES (?, ?, ?)", (channel, number, record))

    def drop_version(self, id_: str) -> None:
        """Forget a version."""
        self.connection.execute("DELETE FROM versions WHERE id = ?", (id_,))
