"""Who takes part: the roll call at the start, and a seeded choice for every round."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flwr.app import Message
from flwr.serverapp import Grid

from fedpeft.errors import FedpeftError, ProtocolError, RunError, nearest
from fedpeft.federation.messages import facts, read_facts
from fedpeft.federation.spoken import require_spoken, spoken
from fedpeft.seeds import stream

_PATIENCE = 120.0


@dataclass(frozen=True)
class Roll:
    """Who answered.

    Parameters
    ----------
    nodes : dict of str to int
        Flower node id of every client that is ready, in order of client name.
    skipped : dict of str to str
        Clients that cannot take part, and why.
    devices : mapping of str to str
        The class of device that each ready client says it is.
    """

    nodes: dict[str, int]
    skipped: dict[str, str]
    devices: Mapping[str, str] = field(default_factory=dict)

    @property
    def clients(self) -> list[str]:
        """The ready clients in order."""
        return list(self.nodes)


@dataclass(frozen=True)
class Agreed:
    """What every client must hold alike.

    Parameters
    ----------
    digests : dict of str to str
        ``scenario``, ``schema``, ``base`` and ``start`` as on the server.
    devices : tuple of str
        Names of the classes of devices, empty where there is one for all.
    """

    digests: dict[str, str]
    devices: tuple[str, ...] = ("",)


def roll_call(grid: Grid, expected: int, agreed: Agreed) -> Roll:
    """Ask every node of a simulation who it is; there nobody may be missing, and nobody run anything else.

    Parameters
    ----------
    grid : Grid
    expected : int
        Nodes to wait for.
    agreed : Agreed

    Raises
    ------
    RunError
        When too few nodes appear, or none is ready.
    ProtocolError
        When a client runs another scenario, schema or base, starts from other values, or two claim one name.
    """
    ids = wait_for_nodes(lambda: sorted(grid.get_node_ids()), expected, expected, _PATIENCE)
    called = greet(grid, ids, agreed)
    for error in called.refused.values():
        raise error
    return called.roll()


@dataclass(frozen=True)
class Called:
    """Who answered what at a roll call.

    Parameters
    ----------
    ready : dict of str to int
        Node ids by client.
    skipped : dict of str to str
        Clients that have nothing to train on, and why.
    refused : dict of int to FedpeftError
        Nodes that did not answer, or not as they must.
    devices : dict of str to str
        Classes of devices by client.
    """

    ready: dict[str, int]
    skipped: dict[str, str]
    refused: dict[int, FedpeftError]
    devices: dict[str, str] = field(default_factory=dict)

    def roll(self) -> Roll:
        """Return the roll.

        Raises
        ------
        RunError
            When nobody is ready.
        """
        if not self.ready:
            reason = next((str(error) for error in self.refused.values()), "none with text to train on")
            raise RunError("clients", reason, "at least one that is ready")
        return Roll(dict(sorted(self.ready.items())), dict(sorted(self.skipped.items())), self.devices)


def greetings(ids: Sequence[int]) -> list[Message]:
    """Return what asks nodes who they are, and says what this server speaks."""
    return [Message(facts(dict(spoken())), node, "query.hello") for node in ids]


def greet(grid: Grid, ids: Sequence[int], agreed: Agreed, names: Mapping[int, str] | None = None) -> Called:
    """Ask nodes who they are and read what they say.

    Parameters
    ----------
    grid : Grid
    ids : sequence of int
    agreed : Agreed
        What they must run.
    names : mapping, optional
        Which client a node is known to belong to, by its id.
    """
    return heard(grid.send_and_receive(greetings(ids)), agreed, names)


def heard(answers: Iterable[Message], agreed: Agreed, names: Mapping[int, str] | None = None) -> Called:
    """Read answers to greetings; parameters as in :func:`greet`."""
    called = Called({}, {}, {})
    for answer in answers:
        node = answer.metadata.src_node_id
        try:
            client, reason, device = _introduction(answer, agreed)
            if names is not None and names.get(node) != client:
                raise ProtocolError("client name", client, f"{names.get(node)}, as this node was enrolled")
            if client in called.ready or client in called.skipped:
                raise ProtocolError("client name", client, "a name used once")
        except FedpeftError as error:
            called.refused[node] = error
            continue
        if reason:
            called.skipped[client] = reason
        else:
            called.ready[client] = node
            called.devices[client] = device
    return called


def _introduction(answer: Message, agreed: Agreed) -> tuple[str, str, str]:
    """Return a client's name, why it cannot take part, or nothing when it can, and its class of device."""
    if answer.has_error():
        raise RunError("client at the roll call", answer.error.reason, "an answer")
    values = read_facts(answer)
    client, device = str(values.get("client")), str(values.get("device", ""))
    require_spoken(values, f"client {client}", "this server")
    for part, value in agreed.digests.items():
        if values.get(part) != value:
            raise ProtocolError(f"client {client}: {part}", str(values.get(part))[:12], value[:12])
    if device not in agreed.devices:
        raise ProtocolError(
            f"client {client}: device", device, "a class of the scenario", nearest(device, agreed.devices)
        )
    return client, "" if values.get("ready") else str(values.get("reason") or "not ready"), device


def choose(clients: Sequence[str], count: int, seed: int, *labels: str | int) -> list[str]:
    """Choose clients without replacement, by seed and label alone; in order of name."""
    names = sorted(clients)
    size = min(count, len(names))
    chosen = stream(seed, *labels).choice(len(names), size=size, replace=False)
    return [names[i] for i in sorted(chosen)]


def strangers(people: Sequence[str]) -> dict[str, str]:
    """Pair each person with the next one: whose adapter they are tried with as the wrong user."""
    return {person: people[(i + 1) % len(people)] for i, person in enumerate(people)}


def wait_for_nodes(present: Callable[[], list[int]], wanted: int, least: int, patience: float) -> list[int]:
    """Wait until so many nodes are there, or the patience is over and at least the least.

    Raises
    ------
    RunError
        When there are fewer.
    """
    end = time.monotonic() + patience
    while len(ids := present()) < wanted:
        if time.monotonic() > end:
            if len(ids) >= least:
                break
            raise RunError("nodes", len(ids), f"at least {least}, one per client", f"{wanted} were expected")
        time.sleep(0.2)
    return ids
