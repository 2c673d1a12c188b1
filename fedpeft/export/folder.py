"""Folders that are whole or absent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from fedpeft.device.manifest import MANIFEST
from fedpeft.errors import BundleError


@contextmanager
def whole_folder(out: Path, mode: int, marker: str = MANIFEST) -> Iterator[Path]:
    """Write a folder beside ``out`` and rename it into place when the block ends well.

    Parameters
    ----------
    out : Path
        Replaced if it is one of its kind already.
    mode : int
        Of the folder; its files get the same without execution.
    marker : str
        The file by which such a folder is known: what has none is something else, and is left alone.

    Yields
    ------
    Path
        An empty folder to write to.

    Raises
    ------
    BundleError
        When the disk is full or not writable, or ``out`` is something else than a bundle. Nothing
        half-written is left, and what was at ``out`` stays.
    """
    out = out.resolve()  # "." has no name to put a draft's beside
    draft = out.with_name(f".{out.name}.{uuid4().hex}")
    try:
        if out.exists() and not (out / marker).is_file() and (not out.is_dir() or any(out.iterdir())):
            raise BundleError(f"folder {out}", "other files", "a bundle or nothing", "choose another folder")
        out.parent.mkdir(parents=True, exist_ok=True)
        draft.mkdir(mode=mode)
        yield draft
        for path in draft.rglob("*"):
            if path.is_file():
                path.chmod(mode & 0o666)
                _flush(path)
        _replace(draft, out)
    except OSError as error:
        raise BundleError(
            f"folder {out}",
            error.strerror or str(error),
            "a place to write",
            "free some space or choose another",
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _replace(draft: Path, out: Path) -> None:
    """Rename ``draft`` to ``out``. A folder cannot replace a full one at once, so the old one steps aside."""
    aside = draft.with_name(f"{draft.name}.old")
    try:
        out.rename(aside)
    except FileNotFoundError:
        draft.rename(out)
        return
    try:
        draft.rename(out)
    except OSError:
        aside.rename(out)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _flush(path: Path) -> None:
    with path.open("r+b") as file:  # Windows flushes only what is open for writing
        os.fsync(file.fileno())
