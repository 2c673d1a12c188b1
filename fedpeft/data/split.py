"""Temporal splits: what a person wrote earlier trains, what they wrote later tests.

A random split would let tomorrow's conversation explain today's. Two cuts in time are made so that the
stated shares of the person's own messages fall before them; a conversation that straddles a cut is
divided there, and its later part keeps the messages just before it as unlabelled context.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fedpeft.data.messages import Conversation, Excerpt


@dataclass(frozen=True, slots=True)
class Split:
    """Three stretches of one person's history, in order of time."""

    train: tuple[Excerpt, ...]
    validation: tuple[Excerpt, ...]
    test: tuple[Excerpt, ...]


def temporal_split(
    conversations: Iterable[Conversation],
    validation: float = 0.15,
    test: float = 0.15,
    context: int = 8,
) -> Split:
    """Divide a history at two moments.

    Parameters
    ----------
    conversations : iterable of Conversation
        The whole history of one person; the messages of each are in order of time.
    validation, test : float
        Shares of the person's own messages, each in (0, 1).
    context : int
        How many earlier messages an excerpt may keep as context.

    Returns
    -------
    Split
        Parts may be empty when the history is very short.
    """
    history = list(conversations)
    times = sorted(m.time for c in history for m in c if m.mine)
    if not times:
        return Split((), (), ())
    first_cut = times[min(len(times) - 1, round(len(times) * (1.0 - validation - test)))]
    second_cut = times[min(len(times) - 1, round(len(times) * (1.0 - test)))]
    return Split(
        train=_between(history, float("-inf"), first_cut, context),
        validation=_between(history, first_cut, second_cut, context),
        test=_between(history, second_cut, float("inf"), context),
    )


def _between(history: list[Conversation], start: float, end: float, context: int) -> tuple[Excerpt, ...]:
    """Return the excerpts whose own messages were sent in [start, end)."""
    excerpts = []
    for conversation in history:
        inside = [i for i, m in enumerate(conversation) if start <= m.time < end]
        if any(conversation[i].mine for i in inside):
            first = inside[0]
            low = max(0, first - context)
            told = conversation[:1] if low and conversation[0].system else ()
            excerpts.append(Excerpt((*told, *conversation[low : inside[-1] + 1]), len(told) + first - low))
    return tuple(sorted(excerpts, key=lambda e: e.messages[e.first].time))
