"""Work in forked processes: each begins as the warm parent is, base loaded and text encoded, and ends without a trace.

A base can be attached to once only, and memory that was ever used does not go back. So every measurement gets a process
of its own. Answers are JSON.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Any

from fedpeft.errors import FedpeftError

Answer = dict[str, Any]
Job = Callable[[], Answer]

FAILED = "failed"
"""The key of an answer that is a failure: its kind and reason."""

_INSIDE: list[int] = []  # the process that leads this one's group, in a child


@dataclass
class _Child:
    process: ForkProcess
    pipe: Connection


def forked(job: Job) -> Answer:
    """Run a job in a process of its own and return its answer."""
    child = None
    try:
        with _uninterrupted():
            child = _start(job)
        return _receive(child)
    finally:
        if child is not None:
            _end(child)


def crew(jobs: Iterable[tuple[str, Job]], workers: int) -> Iterator[tuple[str, Answer]]:
    """Run named jobs, some at a time; yield (name, answer) as they end.

    Closing the iterator, or Ctrl-C, ends the jobs that are under way, with the processes they started.
    """
    waiting = iter(jobs)
    running: dict[Any, tuple[str, _Child]] = {}
    try:
        while True:
            while len(running) < workers and (job := next(waiting, None)) is not None:
                with _uninterrupted():
                    child = _start(job[1])
                    running[child.pipe] = (job[0], child)
            if not running:
                return
            for pipe in wait(list(running)):
                name, child = running.pop(pipe)
                answer = _receive(child)
                _end(child)
                yield name, answer
    finally:
        for _, child in running.values():
            _end(child)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait: while a process forks, Python would tell it to a library's handler, which drops it.

    A mask would not do: another thread may take the signal, and Python then tells this one all the same.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are told to the main thread alone
        return
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed:
            signal.raise_signal(signal.SIGINT)


def _start(job: Job) -> _Child:
    context = get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(job, there))
    process.start()
    there.close()
    return _Child(process, here)


def _run(job: Job, pipe: Connection) -> None:
    if not _INSIDE:
        # A group of its own: Ctrl-C is the parent's affair, and the parent ends whole groups.
        with suppress(OSError):
            os.setpgid(0, 0)
        _INSIDE.append(os.getpid())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Only the answer is of interest: libraries write warnings here.
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    try:
        answer = job()
    except FedpeftError as error:
        answer = {FAILED: "refused", "reason": str(error)}
    except Exception as error:  # whatever a method does wrong is its row's reason, not the comparison's end
        first = (str(error).strip().splitlines() or ["no message"])[0]
        answer = {FAILED: "failed", "reason": f"{type(error).__name__}: {first[:300]}"}
    with suppress(OSError):
        pipe.send_bytes(json.dumps(answer).encode())
    pipe.close()
    # Not sys.exit: what the parent registered to run at its end is not ours.
    os._exit(0)


def _receive(child: _Child) -> Answer:
    try:
        answer = json.loads(child.pipe.recv_bytes())
    except (EOFError, OSError):
        child.process.join()
        return {FAILED: "failed", "reason": f"its process ended without an answer, {_ending(child.process)}"}
    return dict(answer)


def _ending(process: ForkProcess) -> str:
    code = process.exitcode or 0
    if code < 0:
        return f"by signal {signal.Signals(-code).name}: out of memory, perhaps"
    return f"code {code}"


def _end(child: _Child) -> None:
    child.pipe.close()
    pid = child.process.pid
    if pid is not None and child.process.is_alive():
        with suppress(OSError):
            os.killpg(pid, signal.SIGKILL)
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    child.process.join()
