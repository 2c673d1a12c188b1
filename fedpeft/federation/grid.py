"""A Flower Grid in this process: no SuperLink, no Ray, the same apps and the same messages."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from fedpeft.errors import RunError
from fedpeft.federation.flower_internals import (
    CLIENT_GONE,
    CLIENT_RAISED,
    from_bytes,
    identify,
    number,
    to_bytes,
)
from fedpeft.federation.forkpool import ForkPool

_RUN_ID = 1
_FIRST_NODE = 2


class InProcessGrid(Grid):
    """Reaches ``nodes`` clients that run in this process or in forked copies of it.

    Parameters
    ----------
    app : ClientApp
    nodes : int
        Clients are numbered 0 … nodes - 1 in ``partition-id``.
    run_config : dict
        As in a Flower run.
    workers : int
        1 runs clients one after the other right here; more fork as many processes. Load what they shall share before.
    """

    def __init__(self, app: ClientApp, nodes: int, run_config: dict[str, Any], workers: int = 1) -> None:
        self._app, self._nodes, self._config = app, nodes, run_config
        self._numbers = itertools.count(1)
        self._pushed: dict[str, Message] = {}
        identify(_RUN_ID, 1)
        self._pool = ForkPool(self._serve, workers) if workers > 1 else None

    def set_run(self, run: Any) -> None:
        """Accept a run; there is only one here."""

    @property
    def run(self) -> Any:
        """There is no run record without a SuperLink."""
        return None

    def get_node_ids(self) -> list[int]:
        """Return one id per client."""
        return list(range(_FIRST_NODE, _FIRST_NODE + self._nodes))

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Build a message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Lay messages by and return their ids; the clients run when the replies are pulled."""
        pushed = {message.metadata.message_id: message for message in self._numbered(messages)}
        self._pushed |= pushed
        return list(pushed)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Run the clients that these messages went to and return all replies.

        Raises
        ------
        RunError
            When an id was never pushed, or its reply was pulled before.
        """
        wanted = list(dict.fromkeys(message_ids))
        unknown = [id_ for id_ in wanted if id_ not in self._pushed]
        if unknown:
            raise RunError("message ids", ", ".join(unknown), "ids of push_messages", "pull the reply to each id once")
        return list(self._replies([self._pushed.pop(id_) for id_ in wanted]))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Run the clients and return all replies."""
        return list(self.stream(messages, timeout=timeout))

    def stream(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Run the clients and yield each reply as it comes, holding one at a time."""
        return self._replies(self._numbered(messages))

    def close(self) -> None:
        """End the worker processes."""
        if self._pool is not None:
            self._pool.close()

    def __enter__(self) -> InProcessGrid:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _numbered(self, messages: Iterable[Message]) -> list[Message]:
        return [number(message, str(next(self._numbers))) for message in messages]

    def _replies(self, sent: list[Message]) -> Iterator[Message]:
        if self._pool is None:
            for message in sent:
                yield from_bytes(self._serve(to_bytes(message)))
            return
        for index, reply in self._pool.map(to_bytes(message) for message in sent):
            if reply is None:
                gone = Error(CLIENT_GONE, "the worker process died")
                yield Message(gone, reply_to=sent[index])
            else:
                yield from_bytes(reply)

    def _serve(self, request: bytes) -> bytes:
        """Answer one request as a node would; an error of the app becomes an error reply."""
        message = from_bytes(request)
        node = message.metadata.dst_node_id
        identify(_RUN_ID, node)
        context = Context(
            run_id=_RUN_ID,
            node_id=node,
            node_config={"partition-id": node - _FIRST_NODE, "num-partitions": self._nodes},
            state=RecordDict(),
            run_config=dict(self._config),
        )
        try:
            reply = self._app(message, context)
        except Exception as error:  # a client may fail in any way; the server must hear of it
            reason = f"{type(error).__name__}: {error}"
            reply = Message(Error(CLIENT_RAISED, reason), reply_to=message)
        identify(_RUN_ID, 1)
        return to_bytes(number(reply, f"reply-{message.metadata.message_id}"))
