"""The most memory a piece of work takes, as Linux counts it."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_RESET_PEAK = "5"


def peak_mb(work: Callable[[], T]) -> tuple[T, float | None]:
    """Run some work and return its result and how far resident memory rose above the start, in MB.

    The kernel's high-water mark is reset first. Memory that the process holds free is given back before, so that the
    work has to ask for what it uses. None where the platform cannot.
    """
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    start = _reset()
    result = work()
    most = _field("VmHWM")
    return result, None if start is None or most is None else max(0.0, (most - start) / 1e6)


class Private:
    """Watches, inside a ``with``, how far a process's private memory rises: pages mapped from files do not count.

    The kernel keeps no high-water mark of it, so it is looked at every few milliseconds.
    """

    def __init__(self, every: float = 0.005) -> None:
        self._every, self._over = every, Event()
        self._thread = Thread(target=self._watch, daemon=True)
        self._start, self._most = _field("RssAnon"), 0

    @property
    def mb(self) -> float | None:
        """The rise in MB; None where the platform does not say."""
        return None if self._start is None else max(0.0, (self._most - self._start) / 1e6)

    def __enter__(self) -> Private:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(self._every):
            self._most = max(self._most, _field("RssAnon") or 0)


def _reset() -> int | None:
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return None
    return _field("VmRSS")


def _field(name: str) -> int | None:
    with suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return 1024 * int(line.split()[1])
    return None
