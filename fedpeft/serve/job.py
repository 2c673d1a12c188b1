"""One request on its way through the batch: what it reads, how it chooses, when it ends, and who hears of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedpeft.device.loaded import LoadedAdapter
from fedpeft.device.rows import Row
from fedpeft.device.sampling import Sampling
from fedpeft.device.stream import Speech

Reason = Literal["stop", "length", "timeout", "shutdown", "failed"]
"""Why an answer ended: the first two are answers, the others are excuses."""


@dataclass(frozen=True)
class Said:
    """What an answer has come to since it was last heard of.

    Parameters
    ----------
    text : str
    tokens : int
        Tokens made so far, of the whole answer.
    reason : str or None
        Why there is no more; None while there is.
    """

    text: str
    tokens: int
    reason: Reason | None = None


@dataclass(eq=False)
class Job:
    """A request.

    Parameters
    ----------
    ids : sequence of int
        The prompt; with what its adapter puts before it, at most the base's context.
    adapter : LoadedAdapter, optional
    sampling : Sampling
    seed : int
        Of the draws.
    tokens : int
        Most tokens of the answer.
    ends : frozenset of int
        Tokens before which it ends.
    speech : Speech
        Turns tokens into text.
    deliver : callable
        Told of everything, on the scheduler's thread.
    deadline : float
        Of ``time.monotonic``.

    Attributes
    ----------
    cancelled : bool
        Set by whoever wants no more of it; nothing is delivered afterwards.
    """

    ids: Sequence[int]
    adapter: LoadedAdapter | None
    sampling: Sampling
    seed: int
    tokens: int
    ends: frozenset[int]
    speech: Speech
    deliver: Callable[[Said], None]
    deadline: float
    cancelled: bool = False
    row: Row | None = None
    read: int = 0
    made: list[int] = field(default_factory=list)
    done: bool = False

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)

    @property
    def unread(self) -> Sequence[int]:
        """What of the prompt is still to be read."""
        return self.ids[self.read :]

    def hear(self, logits: NDArray[np.float32], room: int) -> None:
        """Choose the next token and tell what it says.

        Parameters
        ----------
        logits : ndarray of float32, shape (vocabulary,)
        room : int
            Tokens that its row can still read; one that cannot be read is the last.
        """
        token = self.sampling.choose(logits, self._random, [*self.ids, *self.made])
        if token in self.ends:
            self.end("stop")
            return
        self.made.append(token)
        text = self.speech.push(token)
        if self.speech.ended:
            self._say(text, "stop")
        elif len(self.made) == self.tokens or not room:
            self._say(text + self.speech.flush(), "length")
        else:
            self._say(text, None)

    def end(self, reason: Reason) -> None:
        """End it without another token."""
        self._say(self.speech.flush() if reason in ("stop", "length") else "", reason)

    def overdue(self) -> bool:
        """Say whether its time is over."""
        return time.monotonic() > self.deadline

    def _say(self, text: str, reason: Reason | None) -> None:
        self.done = reason is not None
        if not self.cancelled and (text or self.done):
            self.deliver(Said(text, len(self.made), reason))
