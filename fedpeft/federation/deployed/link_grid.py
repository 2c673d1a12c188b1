"""A Flower Grid over a SuperLink that may be away: it asks often at first, waits out errors, and knows a deadline.

Flower's own waits three seconds between any two questions, for ever, and raises on the first HTTP 500. Requests carry
the deadline as their time to live, so that nobody works on one that nobody waits for.

A SuperLink hands a message over once: when the connection breaks or the node is killed in that moment, it is lost, and
nobody is told. So what has not been answered is sent again, later and later; a node that has answered it says the same
again without doing it twice.
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

_SOON, _MOST = 0.2, 3.0
_REPEAT = 20.0  # seconds until a request is first sent again; twice as long each time
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
        self._grid, self._deadline = grid, deadline

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

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send messages and return their ids."""
        sent = list(messages)
        for message in sent:
            message.metadata.ttl = self._deadline
        return [id_ or "" for id_ in self._outlasting(lambda: self._grid.push_messages(sent))] if sent else []

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies that are there."""
        wanted = list(message_ids)
        return list(self._outlasting(lambda: self._grid.pull_messages(wanted)))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send messages and return the replies that came before the deadline."""
        return list(self.stream(messages, timeout=timeout))

    def stream(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Send messages and yield each reply as it comes, until the deadline."""
        sent = list(messages)
        end = time.monotonic() + (self._deadline if timeout is None else timeout)
        waiting = {id_: index for index, id_ in enumerate(self.push_messages(sent)) if id_}
        pace, interval = Pace(_SOON, _MOST), _REPEAT
        again = time.monotonic() + interval
        while waiting:
            replies = self.pull_messages(waiting)
            for reply in sorted(replies, key=Message.has_error):
                answered = waiting.get(reply.metadata.reply_to_message_id)
                if answered is not None:
                    waiting = {id_: index for id_, index in waiting.items() if index != answered}
                    pace.reset()
                    yield reply
            now = time.monotonic()
            if now > end:
                return
            if now > again:
                late = sorted(set(waiting.values()))
                waiting |= dict(zip(self.push_messages([_copy(sent[index]) for index in late]), late, strict=True))
                waiting.pop("", None)
                interval *= 2
                again = now + interval
            if waiting and not replies:
                time.sleep(pace.next())

    def _outlasting(self, work: Callable[[], _T]) -> _T:
        """Do something, again while the SuperLink has errors of its own; whoever is asked meanwhile works on."""
        end, backoff = time.monotonic() + self._deadline, Backoff(0.5, 10.0)
        while True:
            try:
                return work()
            except (httpx.HTTPStatusError, httpx.TransportError) as error:
                status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else 500
                if status < 500 or time.monotonic() > end:
                    raise RunError("SuperLink", f"{type(error).__name__}: {error}"[:160], "an answer") from error
                time.sleep(backoff.next())


def _copy(message: Message) -> Message:
    """Return the same request as another message."""
    return Message(message.content, message.metadata.dst_node_id, message.metadata.message_type)
