"""Files that are whole or absent, and private where they hold a person's parameters."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4


def private_folder(folder: Path) -> Path:
    """Create a folder that only its owner can enter; parents get the usual rights."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def write_private(path: Path, content: bytes) -> None:
    """Replace a file at once, with owner-only permissions; a crash leaves the old file or the new one."""
    _replace(path, content, 0o600)


def write_durably(path: Path, content: bytes) -> None:
    """Replace a private file; file and folder are fsynced, so that not even a power cut brings the old one back."""
    write_private(path, content)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: bytes | str) -> None:
    """Replace a file at once; a crash or a full disk leaves the old file or the new one, never half."""
    _replace(path, content.encode() if isinstance(content, str) else content, 0o644)


def _replace(path: Path, content: bytes, mode: int) -> None:
    draft = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
