"""The identity of a base: a sha256 over its published weights, the same on every machine and precision."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from fedpeft.errors import BaseError


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...


def fingerprint(folder: Path) -> str:
    """Hash the weights of a Hugging Face folder.

    The hash runs over (name, dtype, shape, bytes) of every tensor in order of name, so it does not depend on
    how the weights are divided into files, nor on configuration that does not change them.

    Parameters
    ----------
    folder : Path
        Holding one or more ``*.safetensors`` files.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    BaseError
        When there are no weights or they cannot be read.
    """
    entries: dict[str, tuple[Path, int, dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, start, entry in _header(path):
            entries[name] = (path, start, entry)
    if not entries:
        raise BaseError(f"base {folder}", "no *.safetensors", "weights in safetensors format")
    digest = sha256(b"fedpeft-base/v1")
    for name in sorted(entries):
        path, start, entry = entries[name]
        begin, end = entry["data_offsets"]
        head = json.dumps([name, entry["dtype"], entry["shape"], end - begin])
        digest.update(head.encode())
        _feed(digest, path, start + begin, end - begin)
    return digest.hexdigest()


def _header(path: Path) -> list[tuple[str, int, dict[str, Any]]]:
    """Read a safetensors header: 8 bytes of length, then JSON (the format's own documentation)."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, path.stat().st_size)))
        entries = [(name, 8 + length, _entry(entry)) for name, entry in header.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BaseError(f"base weights {path}", str(error), "a whole safetensors file") from error
    return entries


def _entry(entry: Any) -> dict[str, Any]:
    """Take what the fingerprint needs of a tensor's entry."""
    begin, end = entry["data_offsets"]
    return {"dtype": entry["dtype"], "shape": entry["shape"], "data_offsets": (int(begin), int(end))}


def _feed(digest: _Digest, path: Path, start: int, length: int) -> None:
    with path.open("rb") as file:
        file.seek(start)
        while length > 0:
            block = file.read(min(1 << 20, length))
            if not block:
                raise BaseError(f"base weights {path}", "truncated", "a whole safetensors file")
            digest.update(block)
            length -= len(block)
