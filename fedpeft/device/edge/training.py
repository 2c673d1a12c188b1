"""The seam between a device and what trains: the device says what there is, a trainer leaves a bundle.

Nothing here trains. A trainer is any callable of this shape; :mod:`fedpeft.personalization.on_device` has the one that
uses torch, which an app imports when it wants to.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fedpeft.device.edge.store import ExampleStore
from fedpeft.device.lock import held
from fedpeft.signing.signature import SigningKey


@dataclass(frozen=True)
class Job:
    """What a trainer is given.

    Parameters
    ----------
    owner : str
        Whose adapter it will be.
    store : ExampleStore
        The text.
    base : Path
        The base's bundle.
    start : Path or None
        Bundle of the adapter that the person's own comes on top of.
    trusted : frozenset of str
        Keys whose bundles are believed.
    out : Path
        Where the personal bundle is to be written; nothing is there yet.
    key : Ed25519PrivateKey
        The device's own, to sign it with.
    """

    owner: str
    store: ExampleStore
    base: Path
    start: Path | None
    trusted: frozenset[str]
    out: Path
    key: SigningKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class Learned:
    """What training came to.

    Parameters
    ----------
    messages : int
        Of the person's own, in all splits.
    steps : int
    gate : float
        Share of the change that validation let through; 0 keeps what was.
    before, after : float
        Loss on the latest text, which training did not see, in nats per token.
    seconds : float
    """

    messages: int
    steps: int
    gate: float
    before: float
    after: float
    seconds: float


class Trainer(Protocol):
    """Whatever trains."""

    def __call__(self, job: Job) -> Learned:
        """Train on the job's text and write the bundle, or raise and leave none."""


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a device's training lock; the system lets it go when the process ends, however it ends.

    Raises
    ------
    StoreError
        When another process or thread trains.
    """
    with held(path, "training lock", "another that trains"):
        yield
