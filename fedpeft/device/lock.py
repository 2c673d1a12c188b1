"""A lock between processes that the system lets go of when its holder ends, however it ends."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from fedpeft.errors import StoreError


@contextmanager
def held(path: Path, what: str, other: str, patience: float = 0.0) -> Iterator[None]:
    """Hold a lock.

    Parameters
    ----------
    path : Path
        A file of its own; made when missing.
    what, other : str
        The lock, and who may be holding it, for the message of the error.
    patience : float
        Seconds to wait for whoever holds it.

    Raises
    ------
    StoreError
        When another process or thread holds it for longer.
    """
    try:
        with closing(sqlite3.connect(path, timeout=patience, isolation_level=None)) as lock:
            lock.execute("BEGIN EXCLUSIVE")
            path.chmod(0o600)
            yield
    except sqlite3.Error as error:
        busy = other if "locked" in str(error) else str(error)
        raise StoreError(f"{what} {path}", busy, "to be the only one", "wait until it is done") from error
