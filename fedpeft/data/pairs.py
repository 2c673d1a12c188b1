"""What was said, and what a person answered: pairs to learn from which reply would be theirs.

Messages of one person that follow each other are one turn. A pair is a turn of the person's own in the split, and what
was said before it in the conversation, somebody else's turn last; a conversation that the person opens has its first
pair with their second turn.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from fedpeft.data.messages import Excerpt
from fedpeft.data.replies import turns


class Pair(NamedTuple):
    """A reply and what it answers.

    Parameters
    ----------
    context : str
        The messages before, a line each.
    reply : str
        The person's turn.
    """

    context: str
    reply: str


def pairs(excerpts: Iterable[Excerpt]) -> list[Pair]:
    """Return one split's pairs in order of time.

    Parameters
    ----------
    excerpts : iterable of Excerpt
        In order of time.
    """
    found = []
    for excerpt in excerpts:
        _, spoken = turns(excerpt)
        before: list[str] = []
        for turn in spoken:
            # A turn that the split cuts has its first messages in the context, behind those of others.
            context = [*before, turn.before] if turn.before else before
            if turn.mine and turn.text and before:
                found.append(Pair("\n".join(context), turn.text))
            before += filter(None, (turn.before, turn.text))
    return found
