"""What a person asks of a generation: how much, how it is chosen, and where it ends."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from numbers import Integral, Real
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
        # Before anything is compared: what cannot be would end in a TypeError, or much later in the draw.
        for name in ("tokens", "seed", "top_k"):
            _require(name, getattr(self, name), Integral, "an integer")
        for name in ("temperature", "top_p", "repetition_penalty"):
            _require(name, getattr(self, name), Real, "a number")
        super().__post_init__()
        if self.tokens < 1:
            raise FedpeftError("tokens", self.tokens, "1 or more")
        if not 0 <= self.seed < _SEEDS:
            raise FedpeftError("seed", self.seed, "0 or more, below 2^64")
        if (
            not isinstance(self.stop, Collection)
            or isinstance(self.stop, str)
            or not all(isinstance(text, str) and text for text in self.stop)
        ):
            raise FedpeftError("stop", self.stop, "texts that are not empty")
        if len(self.stop) > _MOST_STOPS:
            raise FedpeftError("stop", f"{len(self.stop)} texts", f"at most {_MOST_STOPS}")

    def but(self, settings: Settings) -> Generation:
        """Return the same with some fields replaced."""
        return replace(self, **settings)


def _require(name: str, value: object, kind: type, expected: str) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise FedpeftError(name, value, expected)


DEFAULT = Generation()
