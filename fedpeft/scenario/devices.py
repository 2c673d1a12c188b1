"""Kinds of devices in one federation: what each holds the base in, and how it saves memory.

A class changes how a client computes, never what it learns: every client starts from the same adapter, takes the same
steps on its own text, and sends a vector of the same shape. Who is of which class follows from the scenario's seed and
the clients' names alone:

    named clients first; of the n others, class c gets n * share_c, rounded by largest remainder,
    in the order of a seeded permutation of their sorted names

so a share is met as exactly as people can be counted, on every machine and whatever order files lie in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import Field

from fedpeft.errors import ScenarioError, nearest
from fedpeft.seeds import stream
from fedpeft.training import Training
from fedpeft.training.config import Table

Dtype = Literal["bfloat16", "float32", "float16"]
Precision = Literal["full", "nf4", "int8", "auto"]
PRECISIONS = ("full", "int8", "nf4")
"""What ``auto`` chooses from, the most exact first."""


class DeviceTable(Table):
    """``[[devices]]``: one class of devices."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$", description="What reports call the class.")
    share: float | None = Field(
        None, gt=0, le=1, description="Part of the clients that no class names; the shares sum to 1."
    )
    clients: list[str] | None = Field(None, min_length=1, description="Clients by name, instead of a share.")
    dtype: Dtype | None = Field(None, description="What its base computes in; by default as [base] says.")
    precision: Precision | None = Field(
        None, description="What its base's weights are quantized to; by default as [base] and the method say."
    )
    memory: str | None = Field(None, description="Its budget; by default as [training] says.")
    window: int | None = Field(
        None, ge=8, description="Tokens of its examples, at most as [data] says; left open, a budget may shorten them."
    )
    checkpointing: bool | None = Field(None, description="As in [training], for this class and in all its training.")
    chunk: int | None = Field(None, ge=1, description="As in [training], for this class and in all its training.")
    micro_batch: int | None = Field(None, ge=1, description="As in [training], for this class and in all its training.")

    def thrifty(self, training: Training) -> Training:
        """Return a training as this class carries it out."""
        ways = {"checkpointing": self.checkpointing, "chunk": self.chunk, "micro_batch": self.micro_batch}
        return training.model_copy(update={key: value for key, value in ways.items() if value is not None})


def assign(classes: Sequence[DeviceTable], clients: Iterable[str], seed: int) -> dict[str, str]:
    """Say of which class each client is.

    Parameters
    ----------
    classes : sequence of DeviceTable
        Valid: each with a share or with names.
    clients : iterable of str
        All of the federation's, in any order.
    seed : int
        The scenario's.

    Returns
    -------
    dict of str to str
        Class by client, in order of the clients' names.

    Raises
    ------
    ScenarioError
        When a class names somebody who is none of the clients, a client is in no class, or a class has nobody.
    """
    rest = set(clients)
    everybody, found = sorted(rest), dict[str, str]()
    for device in classes:
        for client in device.clients or ():
            if client not in rest:
                field = f"devices[{device.name}].clients"
                raise ScenarioError(field, client, "a client of the federation", nearest(client, everybody))
            found[client] = device.name
            rest.discard(client)
    shares = {device.name: device.share for device in classes if device.share is not None}
    if rest and not shares:
        raise ScenarioError("devices", f"no class for {min(rest)}", "a class for every client", "give one a share")
    counts = largest_remainder(shares, len(rest))
    order = stream(seed, "devices").permutation(sorted(rest)).tolist()
    for name, count in sorted(counts.items()):
        if not count:
            expected = f"one that is somebody of {len(rest)} clients"
            raise ScenarioError(f"devices[{name}].share", shares[name], expected, "raise it, or leave the class out")
        found |= dict.fromkeys(order[:count], name)
        del order[:count]
    return {client: found[client] for client in everybody}


def largest_remainder(shares: dict[str, float], total: int) -> dict[str, int]:
    """Divide ``total`` in whole parts that are as near to shares of it as can be (Hamilton's method).

    Parameters
    ----------
    shares : dict of str to float
        They sum to 1.
    total : int

    Returns
    -------
    dict of str to int
        It sums to ``total`` where there are shares; of equal remainders the first name's is rounded up.
    """
    # Rounded first: 0.3 of 10 is no more than 3.
    exact = {name: round(share * total, 9) for name, share in shares.items()}
    counts = {name: int(part) for name, part in exact.items()}
    first = sorted(shares, key=lambda name: (counts[name] - exact[name], name))
    for name in first[: total - sum(counts.values())]:
        counts[name] += 1
    return counts
