"""What a client must not forget: written and fsynced before the reply leaves, read again before the next.

A phone that is killed and started again, or a second process for the same client, finds here which round was the last
and what was said in it, and cannot be talked into saying it twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import RLock
from typing import Protocol

from fedpeft.errors import ProtocolError
from fedpeft.files import private_folder, write_durably
from fedpeft.signing.keyfile import require_private


class RoundLog(Protocol):
    """Two named entries, ``peers`` and ``round``, of one client in one run."""

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep every other process out while a message is answered."""

    def read(self, name: str) -> bytes | None:
        """Return an entry; None when it was never written."""

    def write(self, name: str, content: bytes) -> None:
        """Replace an entry; when this returns it is on disk."""

    def clear(self) -> None:
        """Delete everything: the run is over."""


class MemoryLog:
    """For simulations whose clients live as long as the process, and for tests."""

    def __init__(self) -> None:
        self._entries: dict[str, bytes] = {}
        self._lock = RLock()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other threads out."""
        with self._lock:
            yield

    def read(self, name: str) -> bytes | None:
        """Return an entry."""
        return self._entries.get(name)

    def write(self, name: str, content: bytes) -> None:
        """Replace an entry."""
        self._entries[name] = content

    def clear(self) -> None:
        """Delete everything."""
        self._entries.clear()


class FileLog:
    """One file per entry in a folder that only the client can enter.

    Parameters
    ----------
    folder : Path
        The client's own, for one run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = private_folder(folder)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other processes out; the operating system lets go of the lock when a process dies."""
        descriptor = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if os.name == "posix":
                import fcntl

                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def read(self, name: str) -> bytes | None:
        """Return an entry.

        Raises
        ------
        ProtocolError
            When others can read or change the file.
        """
        path = self._folder / name
        try:
            require_private(path, path.stat())
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ProtocolError(f"round log {path}", error.strerror, "a file that can be read") from error

    def write(self, name: str, content: bytes) -> None:
        """Replace an entry for good."""
        write_durably(self._folder / name, content)

    def clear(self) -> None:
        """Delete everything; ``peers`` before ``round``, so that no keys are left without what was said with them."""
        for path in sorted(self._folder.iterdir()):
            if path.is_file() and path.name != ".lock":
                path.unlink()
