"""``keyboard``: 64 real people's chat messages, from the package ``chitchat-dataset`` (MIT).

Sixty-four people who wrote between 300 and 4,000 messages in at least 8 conversations are the clients.
Every conversation that one of them took part in is held out of the public split, so the base model has
never seen a client's words. The choice hangs on a hash of the pseudonym: no seed, no order of files.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from hashlib import sha256
from itertools import chain

from fedpeft.data.messages import Conversation, Message
from fedpeft.errors import DataError

CLIENTS = 64
MESSAGES = range(300, 4001)
MIN_CONVERSATIONS = 8

Turn = tuple[str, str, float]


class KeyboardFederation:
    """The 64 held-out people of chitchat, each a client."""

    name = "keyboard"

    def client_ids(self) -> list[str]:
        """Return the clients' names, ``user-00`` to ``user-63``."""
        return [f"user-{i:02d}" for i in range(CLIENTS)]

    def conversations(self, client_id: str) -> Iterator[Conversation]:
        """Yield the client's conversations, seen from their device."""
        sender = _client_senders()[self.client_ids().index(client_id)]
        for number in _conversations_of()[sender]:
            yield perspective(_conversations()[number], sender)


def public_conversations() -> list[tuple[Turn, ...]]:
    """Return the conversations that no client took part in, as (sender, text, time) triples."""
    held_out = set(_client_senders())
    return [turns for turns in _conversations() if held_out.isdisjoint(who for who, _, _ in turns)]


def perspective(turns: tuple[Turn, ...], sender: str) -> Conversation:
    """See a conversation from one sender's device."""
    return tuple(Message(text, who == sender, time) for who, text, time in turns)


@cache
def _conversations() -> list[tuple[Turn, ...]]:
    try:
        from chitchat_dataset import Dataset
    except ImportError as error:
        raise DataError(
            "data.federation",
            "keyboard",
            "the package chitchat-dataset to be installed",
            "pip install 'fedpeft[train]', or bring your own clients (docs/data.md)",
        ) from error
    return [
        tuple(
            (m["sender"], m["text"].strip(), datetime.fromisoformat(m["timestamp"]).timestamp())
            for m in chain.from_iterable(conversation["messages"])
            if m["text"].strip()
        )
        for _, conversation in sorted(Dataset().items())
    ]


@cache
def _conversations_of() -> dict[str, list[int]]:
    """Return each sender's conversations by number."""
    index: dict[str, list[int]] = defaultdict(list)
    for number, turns in enumerate(_conversations()):
        for sender in {who for who, _, _ in turns}:
            index[sender].append(number)
    return index


@cache
def _client_senders() -> list[str]:
    messages = Counter(who for turns in _conversations() for who, _, _ in turns)
    eligible = [
        who
        for who, numbers in _conversations_of().items()
        if messages[who] in MESSAGES and len(numbers) >= MIN_CONVERSATIONS
    ]
    return sorted(eligible, key=lambda who: sha256(who.encode()).digest())[:CLIENTS]
