"""Secret keys in files that only their owner can read."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from fedpeft.errors import ProtocolError
from fedpeft.files import private_folder, write_private
from fedpeft.signing.signature import SigningKey

_LIMIT = 4096


def write_key(path: Path, key: PrivateKeyTypes) -> None:
    """Write a secret key as PKCS #8, mode 600, in a folder of mode 700.

    Raises
    ------
    ProtocolError
        When the file exists: a key that was used is never overwritten.
    """
    require_free(path)
    private_folder(path.parent)
    write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def require_free(path: Path) -> None:
    """Refuse the place of another key.

    Raises
    ------
    ProtocolError
    """
    if path.exists():
        raise ProtocolError(f"key file {path}", "a key", "no file yet", "move it away if it is no longer wanted")


def own_key(path: Path) -> SigningKey:
    """Return the key in a file, which is made when there is none.

    Raises
    ------
    ProtocolError
        When others can read or change the file, or when it holds no Ed25519 key.
    """
    if not path.exists():
        write_key(path, SigningKey.generate())
    return read_key(path)


def read_key(path: Path) -> SigningKey:
    """Read a signing key.

    Raises
    ------
    ProtocolError
        When others can read or change the file, or when it holds no Ed25519 key.
    """
    key = read_secret(path)
    if not isinstance(key, SigningKey):
        raise ProtocolError(f"key file {path}", type(key).__name__, "an Ed25519 key in PEM")
    return key


def read_secret(path: Path) -> PrivateKeyTypes:
    """Read a secret key of any kind.

    Raises
    ------
    ProtocolError
        When others can read or change the file, or when it holds no key.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise ProtocolError(f"key file {path}", error.strerror, "a key file that can be read") from error
    with os.fdopen(descriptor, "rb") as file:
        require_private(path, os.fstat(descriptor))
        data = file.read(_LIMIT)
    try:
        return load_pem_private_key(data, None)
    except (ValueError, TypeError) as error:
        raise ProtocolError(f"key file {path}", str(error)[:80], "a secret key in PEM") from error


def require_private(path: Path, stat: os.stat_result) -> None:
    """Refuse a secret that others on this machine can read or change."""
    if os.name == "posix" and (stat.st_mode & 0o077 or stat.st_uid != os.getuid()):
        found = f"mode {stat.st_mode & 0o777:o}, owner {stat.st_uid}"
        raise ProtocolError(f"key file {path}", found, "mode 600, owned by you", f"chmod 600 {path}")
