"""The heartbeat: beside whatever the node does, often while there is work and rarely while there is none."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from fedpeft.backoff import Backoff
from fedpeft.errors import LinkError

_SHARE = 0.8  # of the interval, so that a slow request still comes in time


class Heart:
    """Beats until it is stopped.

    Parameters
    ----------
    beat : callable
        Takes the interval in seconds within which the next beat will come; says whether the node is known.
    busy, idle : float
        Intervals with work in the last minutes, and without.
    patience : float
        Longest wait after an error.
    """

    def __init__(self, beat: Callable[[float], bool], busy: float, idle: float, patience: float) -> None:
        self._beat, self._busy, self._idle, self._patience = beat, busy, idle, patience
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._worked = time.monotonic()
        self.unknown = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fedpeft-heart", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def worked(self) -> None:
        """Hear that there is work."""
        idle = self._interval() == self._idle
        self._worked = time.monotonic()
        if idle:
            self._wake.set()  # the SuperLink expects the next beat in a long time only

    def stop(self) -> None:
        """End, at once."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def _interval(self) -> float:
        return self._busy if time.monotonic() - self._worked < self._idle else self._idle

    def _run(self) -> None:
        backoff = Backoff(1.0, self._patience)
        while not self._stopping.is_set():
            interval = self._interval()
            try:
                if not self._beat(interval):
                    self.unknown.set()
                backoff.reset()
                wait = _SHARE * interval
            except LinkError:
                wait = backoff.next()
            self._wake.wait(wait)
            self._wake.clear()
