"""Where the key of a local store lies: the system's keyring where there is one, else a file that only its owner reads.

A key has a name of its own and is never changed: to forget everything is to destroy the key and make another.
"""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any, Protocol

from fedpeft.errors import ProtocolError, StoreError
from fedpeft.files import private_folder, write_private
from fedpeft.signing.encoding import KEY
from fedpeft.signing.keyfile import require_private

_SERVICE = "fedpeft"
_RESTORE = "restore the key; without it the texts cannot be read, only deleted: `fedpeft client forget`"


class Keychain(Protocol):
    """A place for secret keys."""

    @property
    def name(self) -> str:
        """What kind of place it is; a store remembers it and asks no other."""

    def put(self, key_id: str, key: bytes) -> None:
        """Keep a new key."""

    def get(self, key_id: str) -> bytes:
        """Return a key, or raise StoreError when there is none of that name."""

    def destroy(self, key_id: str) -> None:
        """Let a key be gone; nothing happens when it is."""


class FileKeychain:
    """Keys as files of mode 600.

    Whoever can read the account's files can read them too: they keep a copied or stolen database shut, no more.

    Parameters
    ----------
    folder : Path
    """

    name = "file"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, key_id: str, key: bytes) -> None:
        """Write a new key.

        Raises
        ------
        StoreError
            When there is no room.
        """
        try:
            write_private(private_folder(self._folder) / f"{key_id}.key", key)
        except OSError as error:
            raise StoreError(f"key folder {self._folder}", error.strerror, "a place to write a key") from error

    def get(self, key_id: str) -> bytes:
        """Read a key.

        Raises
        ------
        StoreError
            When it is missing, damaged, or others can read it.
        """
        path = self._folder / f"{key_id}.key"
        try:
            with path.open("rb") as file:
                require_private(path, os.fstat(file.fileno()))
                key = file.read(KEY + 1)
        except OSError as error:
            raise StoreError(f"key file {path}", error.strerror, "the store's key", _RESTORE) from error
        except ProtocolError as error:
            raise StoreError(error.field, error.value, error.expected, error.remedy) from error
        return _whole(key, f"key file {path}")

    def destroy(self, key_id: str) -> None:
        """Overwrite and remove a key. A disk may keep the old blocks; a file system with snapshots does."""
        path = self._folder / f"{key_id}.key"
        try:
            with path.open("r+b") as file:
                file.write(bytes(KEY))
                file.flush()
                os.fsync(file.fileno())
            path.unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"key file {path}", error.strerror, "a key that can be removed") from error


class SystemKeychain:
    """Keys in the operating system's keyring, through the package ``keyring``.

    Parameters
    ----------
    ring : object
        A backend of ``keyring``.
    """

    name = "keyring"

    def __init__(self, ring: Any) -> None:
        self._ring = ring

    def put(self, key_id: str, key: bytes) -> None:
        """Keep a new key.

        Raises
        ------
        StoreError
            When the keyring is locked or refuses.
        """
        self._ask("set_password", key_id, b64encode(key).decode())

    def get(self, key_id: str) -> bytes:
        """Return a key.

        Raises
        ------
        StoreError
            When the keyring has none, is locked or refuses.
        """
        found = self._ask("get_password", key_id)
        if found is None:
            raise StoreError(f"keyring {_SERVICE}/{key_id}", "nothing", "the store's key", _RESTORE)
        return _whole(b64decode(found), f"keyring {_SERVICE}/{key_id}")

    def destroy(self, key_id: str) -> None:
        """Remove a key.

        Raises
        ------
        StoreError
            When the keyring is locked or refuses.
        """
        if self._ask("get_password", key_id) is not None:
            self._ask("delete_password", key_id)

    def _ask(self, question: str, *arguments: str) -> str | None:
        try:
            answer: str | None = getattr(self._ring, question)(_SERVICE, *arguments)
        except Exception as error:  # backends raise classes of their own
            kind = type(error).__name__  # never its text: a backend may put the secret in it
            raise StoreError("keyring", kind, "one that answers", "unlock it and try again") from error
        return answer


def find_keychain(folder: Path, name: str | None = None) -> Keychain:
    """Return the keychain of a store.

    Parameters
    ----------
    folder : Path
        Where key files lie.
    name : {"keyring", "file"}, optional
        The one that a store was made with; when not given, the system's if there is one.

    Raises
    ------
    StoreError
        When the store's key is in a keyring and there is none here. Another key is never made in its place.
    """
    ring = None if name == FileKeychain.name else _system_ring()
    if ring is not None:
        return SystemKeychain(ring)
    if name == SystemKeychain.name:
        remedy = "install `keyring`, log in to the desktop session that has it, or run `fedpeft client forget`"
        raise StoreError("keyring", "none", "the one that holds the store's key", remedy)
    return FileKeychain(folder)


def _system_ring() -> Any:
    """Return the preferred backend, or None when there is none that keeps secrets safe."""
    try:
        import keyring
    except ImportError:
        return None
    ring = keyring.get_keyring()
    # keyring's own scale: below 1 is a backend that is not recommended, 0 the one that always fails.
    return ring if float(ring.priority) >= 1 else None


def _whole(key: bytes, where: str) -> bytes:
    if len(key) != KEY:
        raise StoreError(where, f"{len(key)} bytes", f"a key of {KEY}", _RESTORE)
    return key
