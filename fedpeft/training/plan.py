"""Choose how to train within so many bytes, with the least harm.

Ways are tried in a fixed order, and the first whose footprint fits is taken. For each way to hold the base (as
computed in, in bfloat16, packed to 8 bits, to 4 bits), what changes no number comes first: nothing, logits in chunks,
then checkpointing too, then parts of a step half as large, and again. So a base is packed only when nothing gentler
suffices, and a packed one is trained as freely as it can be. A shorter window is the last resort.

Nothing here depends on a client's text or on the machine: the fullest batch is counted, so all engines choose alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from fedpeft.errors import FedpeftError
from fedpeft.training.config import Training
from fedpeft.training.footprint import Footprint, Held

CHUNK = 64
"""Predictions whose logits exist at once, where chunks are chosen."""


@dataclass(frozen=True)
class Thrift:
    """What a training does to save memory; the fields of ``[training]`` by those names."""

    checkpointing: bool
    chunk: int | None
    micro_batch: int

    def of(self, training: Training) -> Training:
        """Return a training carried out so."""
        micro = None if self.micro_batch >= training.batch else self.micro_batch
        update = {"checkpointing": self.checkpointing, "chunk": self.chunk, "micro_batch": micro}
        return training.model_copy(update=update)


@dataclass(frozen=True)
class Choice:
    """A way that fits.

    Parameters
    ----------
    held : Held
    thrift : Thrift
    window : int
        Tokens of an example.
    footprint : Footprint
    """

    held: Held
    thrift: Thrift
    window: int
    footprint: Footprint

    def record(self, budget: int) -> dict[str, Any]:
        """Return what a run's record says of it."""
        return {
            "budget_bytes": budget,
            "predicted_bytes": self.footprint.total,
            "dtype": self.held.dtype,
            "precision": self.held.precision,
            "checkpointing": self.thrift.checkpointing,
            "chunk": self.thrift.chunk,
            "micro_batch": self.thrift.micro_batch,
            "window": self.window,
        }


def thrifts(
    training: Training,
    chunks: bool,
    checkpoints: bool,
    fixed: Sequence[str] = (),
) -> list[Thrift]:
    """Return the ways to train that lead to the same numbers, each needing less memory than the one before.

    Parameters
    ----------
    training : Training
        Its own settings are where the ways begin.
    chunks, checkpoints : bool
        Whether task and method permit them.
    fixed : sequence of str
        Fields that somebody set by hand, which stay as they are.
    """
    chunk, checkpointing = training.chunk, training.checkpointing
    micro = min(training.micro_batch or training.batch, training.batch)
    ways = [Thrift(checkpointing, chunk, micro)]
    if chunks and chunk is None and training.distillation is None and "chunk" not in fixed:
        chunk = CHUNK
        ways.append(Thrift(checkpointing, chunk, micro))
    if checkpoints and not checkpointing and "checkpointing" not in fixed:
        checkpointing = True
        ways.append(Thrift(checkpointing, chunk, micro))
    while micro > 1 and "micro_batch" not in fixed:
        micro = (micro + 1) // 2
        ways.append(Thrift(checkpointing, chunk, micro))
    return ways


def windows(length: int, shortest: int) -> list[int]:
    """Return lengths of an example to try: as asked, then half as long each time, none below the shortest."""
    found = [length]
    while found[-1] >= 2 * shortest:
        found.append(found[-1] // 2)
    return found


def smallest(
    held: Held, ways: Sequence[Thrift], window: int, count: Callable[[Held, Thrift, int], Footprint]
) -> Choice:
    """Return the way that needs least: the last, or the last that takes a step whole.

    Parts of a step add a gradient of everything that is trained, which may be more than they save.
    """
    whole = [way for way in ways if way.micro_batch == ways[0].micro_batch]
    ends = dict.fromkeys([whole[-1], ways[-1]])
    return min((Choice(held, way, window, count(held, way, window)) for way in ends), key=lambda c: c.footprint.total)


def plan(
    budget: int,
    helds: Sequence[Held],
    ways: Sequence[Thrift],
    windows: Sequence[int],
    count: Callable[[Held, Thrift, int], Footprint],
) -> Choice:
    """Return the first way that fits.

    Parameters
    ----------
    budget : int
        Bytes of a process.
    helds, ways, windows : sequence
        Each from the gentlest to the thriftiest.
    count : callable
        What a way takes.

    Raises
    ------
    FedpeftError
        When nothing fits; it says how much the least needs.
    """
    once, least = cache(count), None
    for window in windows:
        for held in helds:
            end = smallest(held, ways, window, once)
            if least is None or end.footprint.total < least.footprint.total:
                least = end
            if end.footprint.total > budget:
                continue
            for way in ways:
                choice = Choice(held, way, window, once(held, way, window))
                if choice.footprint.total <= budget:
                    return choice
    assert least is not None  # noqa: S101 - there is at least one way
    raise FedpeftError(
        "training.memory",
        megabytes(budget),
        f"at least {megabytes(least.footprint.total)}",
        f"that is {least.held.dtype}, {least.held.precision}, {least.window} tokens, "
        f"{least.thrift.micro_batch} at once; take a smaller base or another method",
    )


def megabytes(size: int) -> str:
    """Return bytes as people write them, rounded up."""
    return f"{-(-size // 1_000_000)}MB"
