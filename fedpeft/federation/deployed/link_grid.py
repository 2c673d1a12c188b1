"""A Flower Grid over a SuperLink that may be away: it asks often at first, waits out errors, and knows a deadline.

Flower's own waits three seconds between any two questions, for ever, and raises on the first HTTP 500. Requests carry
what is left of the deadline as their time to live, so that nobody works on one that nobody waits for.

A SuperLink hands a message over once: when the connection breaks or the node is killed in that moment, it is lost, and
nobody is told. So what has not been answered is sent again, later and later, and at once where the SuperLink says that
a message or a reply is gone; a node that has answered says the same again without doing it twice. And a SuperLink that
was away itself takes its nodes for silent: for a while after it is back nobody is given up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import httpx
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedpeft.backoff import Backoff, Pace
from fedpeft.errors import RunError
from fedpeft.federation.flower_runtime import Inbox, away, lost

_SOON, _MOST = 0.2, 3.0
_REPEAT = 20.0  # seconds until a request is first sent again; twice as long each time
_USUAL = 2.0  # at least so many times what such requests have taken, and at most
_SHARE = 0.25  # this share of the deadline
_AGAIN = 1.0  # seconds until one that was lost is sent again; twice as long each time
_OUTAGE = 5.0  # seconds after which a call is one that an outage delayed
_GRACE = 60.0  # seconds that nodes have to be heard of after an outage: their own patience, and a slow handshake
_T = TypeVar("_T")


class LinkGrid(Grid):
    """Reaches nodes through another Grid.

    Parameters
    ----------
    grid : Grid
        The one that Flower gives to a ServerApp.
    deadline : float
        Seconds after which a client that has not answered has failed.
    """

    def __init__(self, grid: Grid, deadline: float) -> None:
        self._grid, self._deadline, self._inbox = grid, deadline, Inbox(grid)
        self._spared = 0.0  # until when a node that is silent is not given up
        self._usual: dict[str, float] = {}

    def set_run(self, run: Any) -> None:
        """Pass on the run."""
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        """The run's record."""
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Build a message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Return who is online."""
        return list(self._outlasting(self._grid.get_node_ids))

    def nodes(self) -> dict[int, bytes]:
        """Return the public keys of who is online, by node id."""
        asked: Callable[[], Iterable[Any]] = self._grid.get_nodes
        return {int(node.node_id): bytes(node.public_key) for node in self._outlasting(asked)}

    def push_messages(self, messages: Iterable[Message], ttl: float | None = None) -> list[str]:
        """Send messages and return their ids, empty for nodes that are not admitted any more."""
        sent = list(messages)
        for message in sent:
            message.metadata.ttl = ttl or self._deadline
        return [id_ or "" for id_ in self._outlasting(lambda: self._grid.push_messages(sent))] if sent else []

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies that are there as a whole."""
        wanted = list(message_ids)
        return list(self._outlasting(lambda: self._inbox.pull(wanted)))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send messages and return the replies that came before the deadline."""
        return list(self.stream(messages, timeout=timeout))

    def stream(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Send messages and yield each reply as it comes, until the deadline."""
        patience = self._deadline if timeout is None else timeout
        end = time.monotonic() + patience
        waiting = _Waiting(list(messages), self._usual, _SHARE * patience)
        try:
            yield from self._replies(waiting, end)
        finally:
            self._inbox.abandon(waiting.over | waiting.ids.keys())

    def _replies(self, waiting: _Waiting, end: float) -> Iterator[Message]:
        pace = Pace(_SOON, _MOST)
        while waiting.open and (now := time.monotonic()) <= end:
            due = waiting.due(now)
            if due:
                waiting.sent(due, self.push_messages([waiting.copy(index) for index in due], max(1.0, end - now)), now)
            replies = self.pull_messages(waiting.ids)
            for reply in sorted(replies, key=Message.has_error):
                if lost(reply) or (away(reply) and time.monotonic() < self._spared):
                    waiting.lose(reply, time.monotonic())
                elif waiting.take(reply, time.monotonic()):
                    pace.reset()
                    yield reply
            if waiting.open and not replies:
                time.sleep(pace.next())

    def _outlasting(self, work: Callable[[], _T]) -> _T:
        """Do something, again while the SuperLink has errors of its own; whoever is asked meanwhile works on."""
        begun, backoff = time.monotonic(), Backoff(0.5, 10.0)
        end = begun + self._deadline
        while True:
            try:
                done = work()
            except (httpx.HTTPStatusError, httpx.TransportError) as error:
                status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else 500
                if status < 500 or time.monotonic() > end:
                    raise RunError("SuperLink", f"{type(error).__name__}: {error}"[:160], "an answer") from error
                time.sleep(backoff.next())
                continue
            if time.monotonic() - begun > _OUTAGE:  # Flower's own client waits for it too
                self._spared = time.monotonic() + _GRACE
            return done


class _Waiting:
    """Requests without an answer: the ids of their copies, and when each is to be sent again."""

    def __init__(self, messages: list[Message], usual: dict[str, float], most: float) -> None:
        self._messages, self._usual = messages, usual
        self.open = dict.fromkeys(range(len(messages)), 0.0)  # when to send next
        self.ids: dict[str, int] = {}
        self.over: set[str] = set()  # copies of what another copy was answered to
        self._begun = time.monotonic()
        took = [usual.get(message.metadata.message_type, 0.0) for message in messages]
        self._interval = [max(_REPEAT, min(most, _USUAL * seconds)) for seconds in took]
        self._losses = [0] * len(messages)
        self._fresh = set(self.open)

    def due(self, now: float) -> list[int]:
        """Return which requests are to be sent, for the first time or again."""
        return [index for index, at in self.open.items() if at <= now]

    def copy(self, index: int) -> Message:
        """Return a request as the next message to its node."""
        message = self._messages[index]
        if index in self._fresh:
            self._fresh.discard(index)
            return message
        return Message(message.content, message.metadata.dst_node_id, message.metadata.message_type)

    def sent(self, indices: list[int], ids: list[str], now: float) -> None:
        """Hear under which ids requests were sent; who has none is no node any more."""
        for index, id_ in zip(indices, ids, strict=True):
            if not id_:
                self._close(index)
                continue
            self.ids[id_] = index
            self.open[index] = now + self._interval[index]
            self._interval[index] *= 2

    def take(self, reply: Message, now: float) -> bool:
        """Take an answer; say whether it is the first to its request."""
        index = self.ids.pop(reply.metadata.reply_to_message_id, None)
        if index is None or index not in self.open:
            return False
        self._close(index)
        kind = self._messages[index].metadata.message_type
        self._usual[kind] = max(self._usual.get(kind, 0.0), now - self._begun)
        return True

    def lose(self, reply: Message, now: float) -> None:
        """Hear that a copy is gone: the next one is sent soon, unless others are under way for longer than that."""
        index = self.ids.pop(reply.metadata.reply_to_message_id, None)
        if index is not None and index in self.open:
            self.open[index] = min(self.open[index], now + _AGAIN * 2 ** self._losses[index])
            self._losses[index] += 1

    def _close(self, index: int) -> None:
        del self.open[index]
        self.over |= {id_ for id_, known in self.ids.items() if known == index}
        self.ids = {id_: known for id_, known in self.ids.items() if known != index}
