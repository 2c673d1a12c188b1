"""The index of an adapter store: one SQLite table, safe for many processes at once.

Writers take turns through SQLite's own lock, readers never wait (write-ahead log). Nothing is in the index that the
folders do not say as well: it can be lost and made again.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any
from uuid import uuid4

from fedpeft.errors import AdapterError

_VERSION, _PATIENCE = 1, 60.0
_REMEDY = "delete it; it is made again from the folders"


@dataclass(frozen=True)
class Entry:
    """What an index knows of an adapter.

    Parameters
    ----------
    name : str
    peft_type : str
        The method, as peft calls it.
    form : str
        How its numbers are stored: ``float32``, ``int8``, ``int4`` or ``sparse``.
    schema : str
        Digest of names and shapes; adapters of one schema can be switched and averaged.
    rank : int or None
        The largest, of a low-rank method.
    parameters : int
    bytes : int
        Of weights and configuration on disk.
    base : str
        Fingerprint of the base.
    sha256 : str
        Of weights and configuration.
    created : str
        ISO 8601, in UTC.
    folder : str
        Under the store's ``adapters``.
    tags : dict of str to str
        Whose it is, of which run, and whatever else.
    """

    name: str
    peft_type: str
    form: str
    schema: str
    rank: int | None
    parameters: int
    bytes: int
    base: str
    sha256: str
    created: str
    folder: str
    tags: dict[str, str] = field(default_factory=dict)


_COLUMNS = [f.name for f in fields(Entry)]


class Index:
    """Entries by name, in a file.

    Parameters
    ----------
    path : Path
        Created when missing, readable by the owner only.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            _touch(path)
        with self._connect() as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                _create(connection)
            elif version != _VERSION:
                raise AdapterError(f"adapter index {path}", f"version {version}", f"version {_VERSION}", _REMEDY)
        # The last connection to close empties the log into the table, which takes many times as long as a change.
        self._keeper = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._keeper.execute("PRAGMA user_version").fetchone()

    def close(self) -> None:
        """Let go of the file."""
        self._keeper.close()

    def find(self, name: str) -> Entry | None:
        """Return an entry, or None when there is none of that name."""
        with self._connect() as connection:
            return _read(connection, name)

    def entries(self) -> list[Entry]:
        """Return all entries in order of name."""
        with self._connect() as connection:
            return [_entry(row) for row in connection.execute("SELECT * FROM adapters ORDER BY name")]

    def base(self) -> str | None:
        """Return the base that its adapters belong to, or None while it holds none."""
        with self._connect() as connection:
            return _base(connection)

    def count(self) -> int:
        """Return how many entries there are."""
        with self._connect() as connection:
            return int(connection.execute("SELECT count(*) FROM adapters").fetchone()[0])

    @contextmanager
    def change(self) -> Iterator[Changes]:
        """Hold the index for writing; an error inside leaves it as it was.

        Yields
        ------
        Changes
        """
        with self._connect() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield Changes(connection)
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        # A connection for each operation: none is shared by threads, and none survives a fork.
        try:
            with closing(sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)) as connection:
                connection.execute("PRAGMA synchronous=NORMAL")
                yield connection
        except sqlite3.Error as error:
            raise AdapterError(f"adapter index {self.path}", str(error), "a readable index", _REMEDY) from error


class Changes:
    """What can be done to the index while it is held."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def find(self, name: str) -> Entry | None:
        """Return an entry, or None when there is none of that name."""
        return _read(self._connection, name)

    def base(self) -> str | None:
        """Return the base that its adapters belong to, or None while it holds none."""
        return _base(self._connection)

    def put(self, entry: Entry) -> None:
        """Add or replace an entry."""
        values = {**asdict(entry), "tags": json.dumps(entry.tags, sort_keys=True)}
        marks = ", ".join("?" * len(_COLUMNS))
        self._connection.execute(f"INSERT OR REPLACE INTO adapters VALUES ({marks})", [values[c] for c in _COLUMNS])  # noqa: S608

    def drop(self, name: str) -> None:
        """Forget an entry."""
        self._connection.execute("DELETE FROM adapters WHERE name = ?", [name])

    def clear(self) -> None:
        """Forget all entries."""
        self._connection.execute("DELETE FROM adapters")


def _touch(path: Path) -> None:
    """Make an empty file for the owner alone.

    Under another name first: a process that closes any handle of a database loses its locks on it (POSIX).
    """
    draft = path.with_name(f".{path.name}.{uuid4().hex}")
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    with suppress(FileExistsError):
        path.hardlink_to(draft)
    draft.unlink()


def _create(connection: sqlite3.Connection) -> None:
    """Make the table; of several processes at once, each finds it made."""
    for attempt in range(100):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError:  # SQLite does not wait for its turn here
            if attempt == 99:
                raise
            time.sleep(0.02)
    columns = ", ".join(f'"{name}"' + (" PRIMARY KEY" if name == "name" else "") for name in _COLUMNS)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(f"CREATE TABLE IF NOT EXISTS adapters ({columns})")
    connection.execute(f"PRAGMA user_version={_VERSION}")
    connection.execute("COMMIT")


def _read(connection: sqlite3.Connection, name: str) -> Entry | None:
    row = connection.execute("SELECT * FROM adapters WHERE name = ?", [name]).fetchone()
    return _entry(row) if row else None


def _base(connection: sqlite3.Connection) -> str | None:
    row = connection.execute("SELECT base FROM adapters LIMIT 1").fetchone()
    return str(row[0]) if row else None


def _entry(row: tuple[Any, ...]) -> Entry:
    values = dict(zip(_COLUMNS, row, strict=True))
    return Entry(**{**values, "tags": json.loads(values["tags"])})
