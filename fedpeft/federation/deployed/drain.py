"""Ending between two rounds, when somebody asks for it.

The wish is a file in the server's folder. Three processes must know of it (whoever asks, the supervisor, and a
ServerApp that Flower started), they may run in different containers over one volume, and it must outlive a supervisor
that is killed while it waits: a file does all that, a signal none of it. The next ``fedpeft server up`` begins by
removing it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedpeft.errors import RunError
from fedpeft.files import write_whole

_BEFORE_ROUNDS = ("keys", "meet")


class Drained(RunError):  # noqa: N818
    """Not an error: the run was asked to end here."""


class Drain:
    """The wish that nothing new begins.

    Parameters
    ----------
    server : Path
        The server's folder.
    """

    def __init__(self, server: Path) -> None:
        self._file = server / "drain"

    def ask(self) -> None:
        """Wish for it."""
        write_whole(self._file, "")

    def clear(self) -> None:
        """Wish for it no more."""
        self._file.unlink(missing_ok=True)

    @property
    def asked(self) -> bool:
        """Whether somebody has."""
        return self._file.exists()

    def heed(self) -> None:
        """Begin nothing new when somebody has asked for that.

        Raises
        ------
        Drained
        """
        if self.asked:
            raise Drained("run", "a drain", "none", "`fedpeft server up` goes on")


class UntilDrained:
    """Watches the rounds of a ServerApp: after each it may be time to end, and before the first.

    Parameters
    ----------
    drain : Drain
    """

    def __init__(self, drain: Drain) -> None:
        self._drain = drain

    def stage(self, name: str, done: int, total: int) -> None:
        """End a session that is only being agreed on."""
        if name in _BEFORE_ROUNDS:
            self._drain.heed()

    def round(self, row: dict[str, Any], rounds: int) -> None:
        """End after a round, which is on disk by now; after the last there is nothing to end."""
        if row["round"] < rounds:
            self._drain.heed()
