"""A disk of its own for a server, small enough to be filled; needs root."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path

_ROOM = "192m"


def mount(folder: Path) -> bool:
    """Make a folder a disk of its own, and say whether that could be done."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={_ROOM}", "tmpfs", str(folder)]
    return os.geteuid() == 0 and not subprocess.call(command)


def unmount(folder: Path) -> None:
    """Undo it."""
    subprocess.call(["umount", "-l", str(folder)])


def fill(folder: Path, seconds: float) -> None:
    """Leave no room on a disk for a while."""
    ballast = folder / "ballast"
    for piece in (1 << 16, 1):
        with ballast.open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"\0" * piece)
    time.sleep(seconds)
    ballast.unlink()
