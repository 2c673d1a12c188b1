"""Processes forked after the base is loaded: they share its pages and start in milliseconds.

A worker reads a request from its pipe, runs the client app, and writes the reply, both as Flower serializes them
(protobuf, never pickle). A worker that dies costs the one reply it was working on and is replaced.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess

Work = Callable[[bytes], bytes]


@dataclass
class _Child:
    process: ForkProcess
    pipe: Connection
    task: int | None = None


class ForkPool:
    """Runs a function of bytes in forked processes.

    Parameters
    ----------
    work : callable
        From request to reply; must not raise.
    workers : int
        How many processes.
    """

    def __init__(self, work: Work, workers: int) -> None:
        self._work = work
        self._children = [self._start() for _ in range(workers)]

    def map(self, requests: Iterable[bytes]) -> Iterator[tuple[int, bytes | None]]:
        """Yield (number of the request, reply) as replies come; None where the worker died."""
        waiting = enumerate(requests)
        for child in self._children:
            self._feed(child, waiting)
        while busy := {child.pipe: child for child in self._children if child.task is not None}:
            for pipe in wait(list(busy)):
                child = busy[pipe]  # type: ignore[index]
                number, child.task = child.task, None
                try:
                    reply: bytes | None = child.pipe.recv_bytes()
                except (EOFError, OSError):
                    reply = None
                    self._replace(child)
                self._feed(child, waiting)
                yield number, reply  # type: ignore[misc]

    def close(self) -> None:
        """End every process."""
        for child in self._children:
            child.pipe.close()
            child.process.terminate()
        for child in self._children:
            child.process.join()
        self._children = []

    def _feed(self, child: _Child, waiting: Iterator[tuple[int, bytes]]) -> None:
        for number, request in waiting:
            child.task = number
            try:
                child.pipe.send_bytes(request)
            except OSError:
                self._replace(child)
                child.pipe.send_bytes(request)
            return

    def _replace(self, child: _Child) -> None:
        child.pipe.close()
        child.process.join()
        fresh = self._start()
        child.process, child.pipe = fresh.process, fresh.pipe

    def _start(self) -> _Child:
        context = get_context("fork")
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(self._work, there, os.getpid()), daemon=True)
        process.start()
        there.close()
        return _Child(process, here)


def _serve(work: Work, pipe: Connection, parent: int) -> None:
    # Ctrl-C reaches the whole process group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        # Siblings hold copies of the pipe's other end, so its closing alone would not tell that the parent died.
        while not pipe.poll(1.0):
            if os.getppid() != parent:
                return
        try:
            pipe.send_bytes(work(pipe.recv_bytes()))
        except (EOFError, OSError):
            return
