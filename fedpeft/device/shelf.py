"""Adapters that were used last, ready to be used again.

An adapter is looked up by where its bundle lies and by what the system says of the files in it. When nothing changed
there, nothing is read; when anything did, the bundle is verified as if it were new.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import Lock

from fedpeft.device.loaded import LoadedAdapter
from fedpeft.errors import FedpeftError

Stamp = tuple[tuple[str, int, int, int, int], ...]


class Shelf:
    """The least recently used adapter leaves first. Several threads may ask at once.

    An adapter that left stays usable for whoever holds it; it is unmapped when nobody does.

    Parameters
    ----------
    load : callable
        Verifies and maps a bundle.
    capacity : int
        Most adapters kept.

    Raises
    ------
    FedpeftError
        When the capacity is negative.
    """

    def __init__(self, load: Callable[[Path], LoadedAdapter], capacity: int) -> None:
        if capacity < 0:
            raise FedpeftError("adapters", capacity, "0 (keep none) or more")
        self._load, self._capacity = load, capacity
        self._kept: OrderedDict[Path, tuple[Stamp, LoadedAdapter]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, folder: Path) -> LoadedAdapter:
        """Return a bundle's adapter.

        Raises
        ------
        BundleError
            When it has to be read and is refused.
        """
        key = folder.resolve()
        stamp = _stamp(key)
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and stamp and kept[0] == stamp and kept[1].whole:
                self._kept.move_to_end(key)
                return kept[1]
            self._kept.pop(key, None)
        adapter = self._load(key)  # not `folder`: a link in it may point elsewhere by now
        if stamp and _stamp(key) == stamp:  # otherwise it was replaced meanwhile, and the next request reads it again
            with self._lock:
                kept = self._kept.pop(key, None)
                if kept is not None and kept[0] == stamp and kept[1].whole:
                    adapter = kept[1]  # two threads read the same at once, and both get the first
                self._kept[key] = (stamp, adapter)
                while len(self._kept) > self._capacity:
                    self._kept.popitem(last=False)
        return adapter


def _stamp(folder: Path) -> Stamp:
    """Return what changes when a file does; nothing when there is no such folder."""
    try:
        found = [(path.name, path.stat()) for path in folder.iterdir()]
    except OSError:
        return ()
    return tuple(sorted((name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for name, s in found))
