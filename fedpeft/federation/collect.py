"""One sum over many clients: ask, add what comes back, ask on until the channel opens the sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedpeft.adapters.update import Update
from fedpeft.codecs import WireCodec
from fedpeft.errors import RoundBurnt
from fedpeft.federation.exchange import exchange
from fedpeft.federation.lateness import LATE
from fedpeft.federation.messages import parcel, read_bounded, read_parcel
from fedpeft.secagg import Collection

# Every reply of a stage has an exact length, which the collection checks; none is longer than this.
_LONGEST = 1 << 20


@dataclass(frozen=True)
class Collected:
    """What came of it.

    Parameters
    ----------
    total : Update or None
        The sum; None when too few clients stayed, and nothing was opened.
    contributors : int
        Payloads in the sum.
    failures : dict of str to str
        Clients that are not in it or vanished on the way, and why.
    bytes_down, bytes_up : int
        Of all requests and replies.
    handshake_up : int
        Of the replies after the first, which open the sum.
    burnt : str
        Why nothing was opened.
    """

    total: Update | None
    contributors: int
    failures: dict[str, str]
    bytes_down: int
    bytes_up: int
    handshake_up: int
    burnt: str = ""


def collect(
    grid: Grid,
    nodes: Mapping[str, int],
    message_type: str,
    content: RecordDict,
    clients: list[str],
    collection: Collection,
    codec: WireCodec,
    progress: Callable[[int, int], None],
    enough: int | None = None,
    late: AbstractSet[str] = frozenset(),
) -> Collected:
    """Send one request to all and open the sum of what comes back.

    Parameters
    ----------
    grid : Grid
    nodes : mapping
        Node ids by client.
    message_type : str
    content : RecordDict
        The request.
    clients : list of str
    collection : Collection
    codec : WireCodec
        Reads the sum.
    progress : callable
        Told (done, total) after each first reply.
    enough : int, optional
        Contributions after which the set of contributors is closed: what comes later is not read. Nothing has been
        opened then, so there is one set, and one sum, whoever is late.
    late : set of str
        Clients of the cohort that a simulation takes for late; they are not asked.
    """
    length = collection.length

    def take(client: str, message: Message) -> None:
        collection.add(client, read_parcel(message.content, length))

    asked = [client for client in clients if client not in late]
    sent = exchange(grid, message_type, nodes, dict.fromkeys(asked, content), take, progress, enough)
    sent.failures.update(dict.fromkeys(late, LATE))
    failures, down, up, later = dict(sent.failures), sent.bytes_down, sent.bytes_up, 0
    try:
        while (wanted := collection.requests()) is not None:
            stage, requests = wanted

            def answer(client: str, message: Message, stage: str = stage) -> None:
                collection.answer(stage, client, read_bounded(message.content, _LONGEST))

            more = exchange(
                grid,
                f"query.{stage}",
                nodes,
                {client: parcel(data) for client, data in requests.items()},
                answer,
                lambda done, total: None,
            )
            failures = more.failures | failures  # the first reason is the one that counts
            down, up, later = down + more.bytes_down, up + more.bytes_up, later + more.bytes_up
        total, contributors = collection.sum()
    except RoundBurnt as error:
        return Collected(None, 0, failures, down, up, later, str(error))
    return Collected(codec.decode(total, contributors), contributors, failures, down, up, later)
