"""Replies written anew: what base, global and people's own adapters answer where people have answered already.

For a few replies in each scored person's test text, drawn by the seed, the device runtime is shown what came before and
writes greedily; ROUGE-L says how near that is to what they wrote. Only a simulation can do this: it reads test text of
people who on their own devices would show it to nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fedpeft.data import Client
from fedpeft.data.federation import Federation
from fedpeft.data.replies import Turn, turns
from fedpeft.device import Runtime
from fedpeft.device.chat import ME, SYSTEM, YOU, Message
from fedpeft.device.loaded import LoadedAdapter
from fedpeft.seeds import stream
from fedpeft.tasks.rouge import rouge_l

_TURNS = 4
"""Turns of context at most: what a phone's screen shows."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply and what came before it.

    Parameters
    ----------
    context : tuple of Message
        The last turns, the other's first, after what a system said.
    wrote : str
        What the person replied.
    """

    context: tuple[Message, ...]
    wrote: str


def replies_of(federation: Federation, client: str) -> list[Reply]:
    """Return every reply of a client's test text that answers something."""
    found = []
    for excerpt in Client.of(federation, client).split.test:
        system, spoken = turns(excerpt)
        for i, turn in enumerate(spoken):
            # A turn that the split cuts is half known; one at the beginning answers nobody.
            if turn.mine and turn.text and not turn.before and i:
                found.append(Reply((*_told(system), *_messages(spoken[:i])), turn.text))
    return found


def drawn(replies: Sequence[Reply], count: int, seed: int, client: str) -> list[Reply]:
    """Draw some of the replies, in their order; the same for one seed."""
    chosen = stream(seed, "held out", client).permutation(len(replies))[:count]
    return [replies[i] for i in sorted(chosen)]


def answered(
    runtime: Runtime, adapters: dict[str, LoadedAdapter | None], replies: Sequence[Reply], tokens: int
) -> Iterator[dict[str, Any]]:
    """Yield what each adapter writes instead of each reply, with its ROUGE-L.

    Parameters
    ----------
    runtime : Runtime
    adapters : dict
        By control; None is the bare base.
    replies : sequence of Reply
    tokens : int
        Most pieces of an answer.

    Yields
    ------
    dict
        ``context``, ``wrote``, and ``answers``: by control ``text`` and ``rouge_l``.
    """
    for reply in replies:
        texts = {who: runtime.chat(reply.context, adapter, tokens=tokens) for who, adapter in adapters.items()}
        yield {
            "context": [dict(message) for message in reply.context],
            "wrote": reply.wrote,
            "answers": {who: {"text": text, "rouge_l": rouge_l(reply.wrote, text)} for who, text in texts.items()},
        }


def _told(system: str | None) -> list[Message]:
    return [] if system is None else [Message(role=SYSTEM, content=system)]


def _messages(earlier: Sequence[Turn]) -> list[Message]:
    last = list(earlier[-_TURNS:])
    if len(last) > 1 and last[0].mine:
        last = last[1:]
    texts = ((turn.mine, "\n".join(filter(None, (turn.before, turn.text)))) for turn in last)
    return [Message(role=ME if mine else YOU, content=text) for mine, text in texts]
