"""Who takes part: the roll call at the start, and a seeded choice for every round."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedpeft.errors import ProtocolError, RunError
from fedpeft.federation.messages import read_facts
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
    """

    nodes: dict[str, int]
    skipped: dict[str, str]

    @property
    def clients(self) -> list[str]:
        """The ready clients in order."""
        return list(self.nodes)


def roll_call(grid: Grid, expected: int, agreed: dict[str, str]) -> Roll:
    """Ask every node who it is, and refuse those that run something else.

    Parameters
    ----------
    grid : Grid
    expected : int
        Nodes to wait for.
    agreed : dict
        ``scenario``, ``schema``, ``base`` and ``start`` as on the server.

    Raises
    ------
    RunError
        When too few nodes appear, or none is ready.
    ProtocolError
        When a client runs another scenario, schema or base, starts from other values, or two claim one name.
    """
    ids = _wait_for_nodes(grid, expected)
    asked = [Message(RecordDict(), node, "query.hello") for node in ids]
    ready: dict[str, int] = {}
    skipped: dict[str, str] = {}
    for answer in grid.send_and_receive(asked):
        if answer.has_error():
            raise RunError("client at the roll call", answer.error.reason, "an answer")
        values = read_facts(answer)
        client = str(values.get("client"))
        for part, value in agreed.items():
            if values.get(part) != value:
                raise ProtocolError(f"client {client}: {part}", str(values.get(part))[:12], value[:12])
        if client in ready or client in skipped:
            raise ProtocolError("client name", client, "a name used once")
        if values.get("ready"):
            ready[client] = answer.metadata.src_node_id
        else:
            skipped[client] = str(values.get("reason"))
    if not ready:
        raise RunError("clients", "none with text to train on", "at least one")
    return Roll(dict(sorted(ready.items())), dict(sorted(skipped.items())))


def choose(clients: Sequence[str], count: int, seed: int, *labels: str | int) -> list[str]:
    """Choose clients without replacement, by seed and label alone; in order of name."""
    names = sorted(clients)
    size = min(count, len(names))
    chosen = stream(seed, *labels).choice(len(names), size=size, replace=False)
    return [names[i] for i in sorted(chosen)]


def strangers(people: Sequence[str]) -> dict[str, str]:
    """Pair each person with the next one: whose adapter they are tried with as the wrong user."""
    return {person: people[(i + 1) % len(people)] for i, person in enumerate(people)}


def _wait_for_nodes(grid: Grid, expected: int) -> list[int]:
    end = time.monotonic() + _PATIENCE
    while len(ids := sorted(grid.get_node_ids())) < expected:
        if time.monotonic() > end:
            raise RunError("nodes", len(ids), f"{expected}, one per client", f"start with num-supernodes={expected}")
        time.sleep(0.2)
    return ids
