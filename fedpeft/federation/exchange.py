"""One stage with many clients: send a request to each, hand each reply over as it arrives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedpeft.errors import FedpeftError
from fedpeft.federation.flower_internals import wire_size
from fedpeft.federation.lateness import LATE


@dataclass
class Exchange:
    """What one stage cost and whom it lost.

    Parameters
    ----------
    failures : dict of str to str
        Clients without a usable reply, and why.
    bytes_down, bytes_up : int
        Bytes of all requests sent and of all replies received.
    """

    failures: dict[str, str]
    bytes_down: int = 0
    bytes_up: int = 0


def exchange(
    grid: Grid,
    message_type: str,
    nodes: Mapping[str, int],
    requests: Mapping[str, RecordDict],
    take: Callable[[str, Message], None],
    progress: Callable[[int, int], None],
    enough: int | None = None,
) -> Exchange:
    """Send a request to each client and take the replies in the order they arrive.

    Parameters
    ----------
    grid : Grid
    message_type : str
        Such as ``"train"`` or ``"train.personalize"``.
    nodes : mapping
        Node ids by client.
    requests : mapping
        Message contents by client.
    take : callable
        Uses a client's reply; a :class:`FedpeftError` that it raises makes the reply a failure.
    progress : callable
        Told (done, total) after each reply.
    enough : int, optional
        Usable replies after which nobody else is waited for.

    Returns
    -------
    Exchange
        Clients that never answered, or too late, are failures too.
    """
    clients = {nodes[client]: client for client in requests}
    messages = [Message(content, nodes[client], message_type) for client, content in requests.items()]
    result = Exchange({}, bytes_down=sum(wire_size(content) for content in requests.values()))
    waiting, missing, taken = set(requests), "no answer", 0
    for message in _stream(grid, messages):
        client = clients.get(message.metadata.src_node_id, "")
        if client not in waiting:
            continue
        waiting.discard(client)
        progress(len(requests) - len(waiting), len(requests))
        if message.has_error():
            result.failures[client] = str(message.error.reason)
            continue
        result.bytes_up += wire_size(message.content)
        try:
            take(client, message)
            taken += 1
        except FedpeftError as error:
            result.failures[client] = str(error)
        if waiting and taken == enough:
            missing = LATE
            break
    result.failures.update(dict.fromkeys(waiting, missing))
    return result


def _stream(grid: Grid, messages: list[Message]) -> Iterator[Message]:
    """Yield replies one by one where the grid can, otherwise all when the last is there."""
    stream: Callable[[list[Message]], Iterable[Message]] = getattr(grid, "stream", grid.send_and_receive)
    yield from stream(messages)
