"""What a person asks of a generation: how much, how it is chosen, and where it ends."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypedDict

from fedpeft.device.sampling import Sampling
from fedpeft.errors import FedpeftError

_MOST_STOPS = 16
_SEEDS = 2**64


class Settings(TypedDict, total=False):
    """The fields of :class:`Generation`, as keywords."""

    tokens: int
    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float
    stop: tuple[str, ...]
    seed: int


@dataclass(frozen=True)
class Generation(Sampling):
    """How a text goes on.

    Parameters
    ----------
    temperature, top_k, top_p, repetition_penalty
        As in :class:`~fedpeft.device.sampling.Sampling`.
    tokens : int
        Most tokens to add; fewer when the message ends or the context is full.
    stop : tuple of str
        The text ends before the first of these that is completed.
    seed : int
        Of the draws, when the temperature is not 0.

    Raises
    ------
    FedpeftError
        Naming the field that has no meaning, and its value.
    """

    tokens: int = 32
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens < 1:
            raise FedpeftError("tokens", self.tokens, "1 or more")
        if not 0 <= self.seed < _SEEDS:
            raise FedpeftError("seed", self.seed, "0 or more, below 2^64")
        if isinstance(self.stop, str) or not all(isinstance(text, str) and text for text in self.stop):
            raise FedpeftError("stop", self.stop, "texts that are not empty")
        if len(self.stop) > _MOST_STOPS:
            raise FedpeftError("stop", f"{len(self.stop)} texts", f"at most {_MOST_STOPS}")

    def but(self, settings: Settings) -> Generation:
        """Return the same with some fields replaced."""
        return replace(self, **settings)


DEFAULT = Generation()
