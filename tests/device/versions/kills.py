"""Processes that are killed, with signal 9, just before the n-th time that they touch a folder."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

_EVENTS = {"open", "os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}


def killed_at(step: int, folder: Path, work: Callable[[], object]) -> bool:
    """Do something in a child that is killed before its ``step``-th change under a folder; say whether it was."""
    child = os.fork()
    if child == 0:
        _run(step, str(folder), work)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


def _run(step: int, folder: str, work: Callable[[], object]) -> None:
    seen = 0

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event not in _EVENTS or not str(arguments[0]).startswith(folder):
            return
        if event == "open" and not int(arguments[2]) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):  # type: ignore[arg-type]
            return
        seen += 1
        if seen == step:
            os.kill(os.getpid(), signal.SIGKILL)

    code = 1
    try:
        sys.addaudithook(hear)
        work()
        code = 0
    finally:
        os._exit(code)
