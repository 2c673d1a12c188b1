"""One thread that runs the base: whoever waits joins as soon as a place is free, all who sit write one token per step.

    repeat:  drop the cancelled and the late
             read at most CHUNK tokens of newcomers' prompts, and seat those whose prompt is read
             one step: a token for every seated row

Newcomers are taken in the order they came. A long prompt is read in pieces between steps, so that it holds up nobody by
more than a piece.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Condition, Thread

import numpy as np
from numpy.typing import NDArray

from fedpeft.device.rows import CHUNK, Row, RowDecoder
from fedpeft.errors import BundleError
from fedpeft.serve.job import Job, Reason
from fedpeft.serve.metrics import Metrics

_log = logging.getLogger("fedpeft.serve")


class Scheduler:
    """Runs jobs on a thread of its own.

    Parameters
    ----------
    rows : RowDecoder
        Nobody else may use it from now on.
    metrics : Metrics
    """

    def __init__(self, rows: RowDecoder, metrics: Metrics) -> None:
        self._rows, self._metrics = rows, metrics
        self._changed = Condition()
        self._waiting: deque[Job] = deque()
        self._reading: Job | None = None
        self._seated: dict[Row, Job] = {}
        self._ending: float | None = None
        self._closed = False
        self._thread = Thread(target=self._run, name="fedpeft-rows", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job; it is told everything by its own ``deliver``."""
        with self._changed:
            if self._ending is None:
                self._waiting.append(job)
                self._changed.notify()
                return
        job.end("shutdown")

    def cancel(self, job: Job) -> None:
        """Let go of a job; its place is free before the next step."""
        with self._changed:
            job.cancelled = True
            self._changed.notify()

    def drain(self, seconds: float) -> None:
        """Refuse those that wait, and all that come; those that are being answered have some seconds left."""
        with self._changed:
            self._ending = self._ending or time.monotonic() + seconds
            refused, self._waiting = list(self._waiting), deque()
            self._changed.notify()
        for job in refused:
            job.end("shutdown")

    def close(self) -> None:
        """End everything and the thread; jobs that are not done are told ``shutdown``."""
        self.drain(0)
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether there is still a thread that answers."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while self._wait():
            try:
                self._sweep()
                self._welcome()
                self._step()
            except Exception as error:
                # The message could quote what was read; where it happened is enough to look for it.
                _log.error("a step failed: %s", type(error).__name__)
                self._metrics.failures.inc()
                self._abandon("failed")
            self._metrics.waiting.set(len(self._waiting))
            self._metrics.rows.set(len(self._seated))
        self._abandon("shutdown")

    def _wait(self) -> bool:
        with self._changed:
            while not (self._closed or self._waiting or self._reading or self._seated):
                self._changed.wait()
            return not self._closed

    def _sweep(self) -> None:
        """Drop whoever is cancelled or late, wherever they are."""
        with self._changed:
            gone = [job for job in self._waiting if job.cancelled or job.overdue()]
            self._waiting = deque(job for job in self._waiting if job not in gone)
        over = self._ending is not None and time.monotonic() > self._ending
        gone += [job for job in self._inside() if job.cancelled or job.overdue() or over]
        for job in gone:
            self._release(job)
            if job.cancelled:
                self._metrics.cancelled.inc()
            else:
                job.end("timeout" if job.overdue() else "shutdown")

    def _welcome(self) -> None:
        """Read prompts, a piece's worth in all, and seat whose prompt is read."""
        budget = CHUNK
        while budget > 0 and (job := self._next()):
            piece = job.unread[:budget]
            budget -= len(piece)
            with self._apart(job):
                self._read(job, piece)

    def _read(self, job: Job, piece: Sequence[int]) -> None:
        if job.row is None:
            job.row = self._rows.open(job.adapter)
        logits = self._rows.read(job.row, piece)
        self._metrics.prompt_tokens.inc(len(piece))
        job.read += len(piece)
        if not job.unread:
            self._rows.seat(job.row)
            self._seated[job.row], self._reading = job, None
            self._hear(job, logits)

    def _next(self) -> Job | None:
        """Return whose prompt is being read, or is to be read next."""
        if self._reading is None and len(self._seated) < self._rows.places:
            with self._changed:
                self._reading = self._waiting.popleft() if self._waiting else None
        return self._reading

    def _step(self) -> None:
        jobs = [self._seated[row] for row in self._rows.seated]
        if not jobs:
            return
        with self._metrics.step_seconds.time():
            scores = self._rows.step([job.made[-1] for job in jobs])
        for job, logits in zip(jobs, scores, strict=True):
            with self._apart(job):
                self._hear(job, logits)

    @contextmanager
    def _apart(self, job: Job) -> Iterator[None]:
        """Let what goes wrong with one request end that one, and nobody else's."""
        try:
            yield
        except BundleError as error:
            # Of adapters and sizes; nothing that somebody wrote is in it.
            _log.error("an adapter is refused: %s", error)
            self._fail(job)
        except Exception as error:
            # The message could quote what was read; what kind it is, is enough to look for it.
            _log.error("a request failed: %s", type(error).__name__)
            self._fail(job)

    def _fail(self, job: Job) -> None:
        self._metrics.failures.inc()
        self._release(job)
        if not job.done:
            job.end("failed")

    def _hear(self, job: Job, logits: NDArray[np.float32]) -> None:
        before, filled = len(job.made), job.row.length if job.row else 0
        job.hear(logits, self._rows.context - filled)
        self._metrics.tokens.inc(len(job.made) - before)
        if job.done:
            self._release(job)

    def _release(self, job: Job) -> None:
        """Give up a job's place, if it has one."""
        if job is self._reading:
            self._reading = None
        if job.row is not None:
            self._seated.pop(job.row, None)
            self._rows.leave(job.row)

    def _inside(self) -> list[Job]:
        return [*self._seated.values(), *([self._reading] if self._reading else [])]

    def _abandon(self, reason: Reason) -> None:
        for job in self._inside():
            with self._apart(job):
                self._release(job)
                if not job.done:
                    job.end(reason)
