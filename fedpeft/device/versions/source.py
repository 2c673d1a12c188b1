"""Where versions come from: a folder with a shelf's layout, or a server that serves one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fedpeft.device.versions.document import LARGEST, Trust
from fedpeft.device.versions.version import Head, Version, require_channel
from fedpeft.errors import ShelfError, ShelfGone

HEADS, VERSIONS, BLOBS = "versions/head", "versions", "blobs"
BLOCK = 1 << 16


@dataclass(frozen=True)
class Stream:
    """A file as it comes.

    Parameters
    ----------
    begin : int
        Where in the file the first of the bytes belongs; not always where it was asked for.
    blocks : iterator of bytes
        Ends early, or raises :class:`fedpeft.errors.FetchError`, when the source breaks off.
    """

    begin: int
    blocks: Iterator[bytes]


class Source(Protocol):
    """What there is to fetch from."""

    name: str

    def document(self, path: str, limit: int) -> bytes:
        """Return a short file.

        Raises
        ------
        ShelfGone
            When there is none.
        ShelfError
            When it is longer than ``limit``.
        FetchError
            When it may come at another attempt.
        """

    def blob(self, sha256: str, start: int, size: int) -> AbstractContextManager[Stream]:
        """Open a file of ``size`` bytes, from ``start`` on if that can be done."""


class FolderSource:
    """A shelf's folder, on this machine or a medium.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self.name, self._folder = str(folder), folder
        if not (folder / HEADS).is_dir():
            raise ShelfError("shelf", str(folder), "a folder with versions/head", "`fedpeft registry publish`")

    def document(self, path: str, limit: int) -> bytes:
        """Read a short file."""
        try:
            with (self._folder / path).open("rb") as file:
                content = file.read(limit + 1)
        except OSError as error:
            raise ShelfGone(f"{self.name}/{path}", error.strerror, "a file that is there") from error
        if len(content) > limit:
            raise ShelfError(f"{self.name}/{path}", f"more than {limit} bytes", "a short document")
        return content

    @contextmanager
    def blob(self, sha256: str, start: int, size: int) -> Iterator[Stream]:
        """Read a file from ``start`` on."""
        path = self._folder / BLOBS / sha256
        try:
            file = path.open("rb")
        except OSError as error:
            raise ShelfGone(str(path), error.strerror, f"a file of {size} bytes") from error
        with file:
            file.seek(start)
            yield Stream(start, iter(lambda: file.read(BLOCK), b""))


def open_source(where: str, ca: Path | None = None) -> Source:
    """Return the source at an https URL or in a folder.

    Parameters
    ----------
    where : str
    ca : Path, optional
        PEM file of the only authority that is believed; the system's when not given.

    Raises
    ------
    ShelfError
        When it is neither.
    """
    from fedpeft.device.versions.web import WebSource  # a device that is given folders opens no sockets

    return WebSource(where, ca) if "://" in where else FolderSource(Path(where))


def head_data(source: Source, channel: str) -> bytes:
    """Return a channel's head as it is signed; :func:`parse_head` reads it."""
    return source.document(f"{HEADS}/{require_channel(channel)}", LARGEST)


def parse_head(data: bytes, trust: Trust, channel: str, where: str) -> Head:
    """Verify a head.

    Raises
    ------
    ShelfError
        When it is not believed, or is another channel's.
    """
    where = f"{where}/{HEADS}/{channel}"
    head = Head.read(data, trust, where)
    if head.channel != channel:
        raise ShelfError(f"{where} channel", head.channel, channel)
    return head


def version_data(source: Source, version: str) -> bytes:
    """Return a version as it is signed; :func:`parse_version` reads it."""
    return source.document(f"{VERSIONS}/{version}", LARGEST)


def parse_version(data: bytes, trust: Trust, version: str, where: str) -> Version:
    """Verify a version whose hash is known.

    Raises
    ------
    ShelfError
        When it is not believed, or is another one.
    """
    where = f"{where}/{VERSIONS}/{version[:12]}…"
    found = Version.read(data, trust, where)
    if found.id != version:
        raise ShelfError(where, f"version {found.id[:12]}…", "the one of that name")
    return found


def history(source: Source, trust: Trust, channel: str, most: int = 100) -> Iterator[Version]:
    """Yield a channel's version and those it came after, the newest first; older ones may have been removed."""
    wanted: str | None = parse_head(head_data(source, channel), trust, channel, source.name).version
    for number in range(most):
        if wanted is None:
            return
        try:
            found = parse_version(version_data(source, wanted), trust, wanted, source.name)
        except ShelfGone:
            if number == 0:
                raise
            return
        yield found
        wanted = found.parent
