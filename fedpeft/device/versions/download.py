"""One file, from a source that may break off at any byte, onto a disk that may be full.

    part of n bytes ──(Range: n-)──► part of all bytes ──(sha256)──► the file, under its name

What came stays in the part, whatever kills the process, and is not asked for again. A part is believed by nobody: only
when all of it has the hash that was signed does it get its name. A part that turns out wrong, as a disk may leave it
after a power cut, is fetched once more from the first byte.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from fedpeft.backoff import Backoff
from fedpeft.device.bundle import is_whole
from fedpeft.device.manifest import File
from fedpeft.device.versions.source import Source
from fedpeft.errors import FetchError, ShelfError

_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Patience:
    """How often to try again.

    Parameters
    ----------
    attempts : int
        In a row without a byte more.
    first, most : float
        Seconds: bound of the first wait, and of any; see :class:`fedpeft.backoff.Backoff`.
    seconds : float
        For all of it: a server that sends a byte a minute is not waited for.
    """

    attempts: int = 6
    first: float = 0.5
    most: float = 20.0
    seconds: float = 3600.0
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    def through(self, work: Callable[[], _T], advanced: Callable[[], int] = lambda: 0) -> _T:
        """Do something, again when it could not be fetched; ``advanced`` tells how far it is."""
        backoff, end, reached = Backoff(self.first, self.most), time.monotonic() + self.seconds, advanced()
        while True:
            try:
                return work()
            except FetchError:
                now = advanced()
                if now > reached:
                    backoff.reset()
                    reached = now
                wait = backoff.next()
                if backoff.failures >= self.attempts or time.monotonic() + wait > end:
                    raise
                self.sleep(wait)


PATIENT = Patience()


def download(
    source: Source, file: File, place: Path, patience: Patience = PATIENT, heard: Callable[[int], None] = lambda _: None
) -> int:
    """Fetch what is missing of a file and put it in its place, whole.

    Parameters
    ----------
    source : Source
    file : File
        Its hash and size, as they were signed.
    place : Path
        Where it will be; what came of it so far is beside, with the ending ``.part``.
    patience : Patience
    heard : callable
        Told how many bytes came, again and again.

    Returns
    -------
    int
        How many bytes were fetched.

    Raises
    ------
    ShelfError
        When the source has another file than was signed, or there is no room; the part is gone then.
    FetchError
        When the source broke off too often; what came stays.
    """
    part = place.with_name(f"{place.name}.part")
    got = 0

    def count(more: int) -> None:
        nonlocal got
        got += more
        heard(more)

    resumed = 0 < _size(part) <= file.bytes
    try:
        _complete(source, file, part, patience, count)
        if resumed and not is_whole(part, file):
            part.unlink()
            _complete(source, file, part, patience, count)
        if not is_whole(part, file):
            part.unlink()
            raise ShelfError(f"{source.name} file {file.sha256[:12]}…", "another file", "the one that was signed")
        part.replace(place)
    except OSError as error:
        if error.errno in _FULL:
            part.unlink(missing_ok=True)  # a disk that is full because of us is not left so
        raise no_room(error, part) from error
    return got


def _complete(source: Source, file: File, part: Path, patience: Patience, heard: Callable[[int], None]) -> None:
    if _size(part) > file.bytes:
        part.unlink()
    end = time.monotonic() + patience.seconds

    def once() -> None:
        _continue(source, file, part, end, heard)

    if _size(part) < file.bytes or not part.exists():
        patience.through(once, lambda: _size(part))


def _continue(source: Source, file: File, part: Path, end: float, heard: Callable[[int], None]) -> None:
    with (
        source.blob(file.sha256, _size(part), file.bytes) as stream,
        os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as target,
    ):
        target.truncate(stream.begin)
        target.seek(stream.begin)
        written = stream.begin
        for block in stream.blocks:
            written += len(block)
            if written > file.bytes:
                raise ShelfError(f"{source.name} file {file.sha256[:12]}…", "more bytes", f"{file.bytes}, as signed")
            target.write(block)
            heard(len(block))
            if time.monotonic() > end:
                raise FetchError(f"{source.name} file {file.sha256[:12]}…", "too slow", "a faster server")
        target.flush()
        os.fsync(target.fileno())
    if written < file.bytes:
        raise FetchError(f"{source.name} file {file.sha256[:12]}…", f"{written} bytes", f"{file.bytes} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def no_room(error: OSError, path: Path) -> ShelfError:
    """Say in one line why something could not be written."""
    if error.errno in _FULL:
        return ShelfError(str(path), "a full disk", "room for it", "what is installed stays; free some space")
    return ShelfError(str(path), error.strerror or str(error), "a place to write", "what is installed stays")
