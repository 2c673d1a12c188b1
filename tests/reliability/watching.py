"""A thread that looks at something again and again, until it is stopped."""

from __future__ import annotations

import threading


class Watching:
    """Calls :meth:`look`.

    Parameters
    ----------
    pause : float
        Seconds between two looks.
    """

    def __init__(self, pause: float) -> None:
        self._pause, self._stopping = pause, threading.Event()
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self._thread.join()

    def look(self) -> None:
        """Look once."""
        raise NotImplementedError

    def _run(self) -> None:
        while not self._stopping.wait(self._pause):
            self.look()
