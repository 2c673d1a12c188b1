"""What a shelf no longer needs: old versions, and files that no version has."""

from __future__ import annotations

from pathlib import Path

from fedpeft.device.versions.source import BLOBS, HEADS, VERSIONS
from fedpeft.errors import ShelfError
from fedpeft.registry.shelf import Shelf


def collect(shelf: Shelf, keep: int = 10) -> tuple[int, int]:
    """Remove versions that no channel had as one of its last heads, and files that no version has.

    The index forgets first. Whatever kills this, what is left over is removed by the next.

    Parameters
    ----------
    shelf : Shelf
    keep : int
        How many of the last heads of each channel.

    Returns
    -------
    versions, bytes : int
        How many were removed.

    Raises
    ------
    ShelfError
        When not even the heads were to stay.
    """
    if keep < 1:
        raise ShelfError("heads to keep", keep, "1 or more: what is in force stays")
    with shelf.index.writing() as index:
        kept = {head.version for channel in index.channels() for head in shelf.heads_in(index, channel)[:keep]}
        gone = [version.id for version in shelf.versions_in(index) if version.id not in kept]
        for id_ in gone:
            index.drop_version(id_)
    freed = 0
    with shelf.index.writing() as index:  # no publisher is between a file and the version that needs it
        versions = shelf.versions_in(index)
        known = {version.id for version in versions} | {Path(HEADS).name}
        files = {file.sha256 for version in versions for _, _, file in version.files()}
        for part, wanted in ((VERSIONS, known), (HEADS, set(index.channels())), (BLOBS, files)):
            for path in (shelf.folder / part).iterdir():
                if path.name not in wanted:
                    freed += path.stat().st_size
                    path.unlink()
    return len(gone), freed
