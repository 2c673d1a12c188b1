"""A folder held by one process; the operating system lets go of it when the process dies, however that happens."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedpeft.errors import FedpeftError

LOCK = ".lock"
_TRIES = 4


@contextmanager
def hold(folder: Path, refusal: FedpeftError) -> Iterator[None]:
    """Hold a folder for this process.

    Parameters
    ----------
    folder : Path
    refusal : FedpeftError
        Raised when another process holds it.
    """
    with (folder / LOCK).open("w") as file:
        for left in reversed(range(_TRIES)):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if not left:
                    raise refusal from error
                time.sleep(0.05)  # somebody may only be looking: see is_held
        yield


def is_held(folder: Path) -> bool:
    """Say whether a process holds a folder."""
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        return False
