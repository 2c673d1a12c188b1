"""How much one caller, and all of them together, may ask for.

Whoever is over a limit is told at once, and when to come again: a queue without bound answers everybody late.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

from fedpeft.errors import ServeError
from fedpeft.serve.faults import Fault, overloaded


@dataclass(frozen=True)
class Limits:
    """What is accepted.

    Parameters
    ----------
    slots : int
        Texts that are written at the same time.
    queue : int
        Requests in all, those waiting and those being answered.
    per_user : int
        Of these, one person's.
    body_bytes : int
        A request's body.
    tokens : int
        Most tokens of an answer; a request that asks for more gets these.
    context : int
        Most tokens of a prompt and its answer together; the base's own context when that is smaller.
    timeout_s : float
        Seconds from a request's arrival until it is given up.
    drain_s : float
        Seconds for answers that have begun, when the service is told to end.
    adapters : int
        Adapters kept ready; others are read again when they are asked for.

    Raises
    ------
    ServeError
        When one is not positive.
    """

    slots: int = 8
    queue: int = 128
    per_user: int = 4
    body_bytes: int = 64 << 10
    tokens: int = 256
    context: int = 2048
    timeout_s: float = 60.0
    drain_s: float = 20.0
    adapters: int = 1024

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ServeError(field.name, getattr(self, field.name), "more than 0")


class Admission:
    """Who is inside. It belongs to the event loop's thread.

    Parameters
    ----------
    limits : Limits
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._inside: Counter[str] = Counter()
        self.closed = False

    @property
    def total(self) -> int:
        """Requests that are waiting or being answered."""
        return self._inside.total()

    @contextmanager
    def enter(self, user: str, seconds_each: float) -> Iterator[None]:
        """Let a request in for the time of the block.

        Parameters
        ----------
        user : str
        seconds_each : float
            How long an answer took lately, from which the time to come again is told.

        Raises
        ------
        Fault
            429 when there are too many, 503 when the service is ending.
        """
        if self.closed:
            raise Fault(503, "The service is shutting down.", "server_error", code="shutting_down", retry_after=5)
        if self._inside[user] >= self._limits.per_user:
            raise overloaded("You have too many requests under way.", seconds_each)
        if self.total >= self._limits.queue:
            raise overloaded("Too many requests are waiting.", seconds_each * self.total / self._limits.slots)
        self._inside[user] += 1
        try:
            yield
        finally:
            self._inside[user] -= 1
            if not self._inside[user]:
                del self._inside[user]
