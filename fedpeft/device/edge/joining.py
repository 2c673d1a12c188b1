"""The seam between a device and what takes part in rounds: the device says what it may use, a joiner does the rest.

Nothing here trains or reaches a network. A joiner is any callable of this shape; the one over Flower, which an app
imports when it wants to, is in :mod:`fedpeft.federation.on_device`. An enroller makes the device a member beforehand:
:func:`fedpeft.gate.enrol`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event as Flag
from typing import Protocol

from fedpeft.device.edge.events import Declined, Event
from fedpeft.device.edge.home import Home
from fedpeft.device.edge.membership import Membership
from fedpeft.device.edge.policy import Verdict
from fedpeft.device.edge.store import ExampleStore
from fedpeft.device.edge.training import alone
from fedpeft.errors import PolicyError, StoreError
from fedpeft.signing.signature import SigningKey


@dataclass(frozen=True)
class Seat:
    """What a joiner is given.

    Parameters
    ----------
    member : Membership
    home : Home
    store : ExampleStore
        The text, as it is whenever it is read.
    base : Path or None
        Bundle of the base that the app brought; without one the joiner makes it.
    trusted : frozenset of str
        Keys whose bundles are believed; the device's own is among them.
    key : Ed25519PrivateKey
        The device's own, for the bundles that the joiner makes.
    verdict : callable
        Says whether the policy allows it now.
    tell : callable
        Hears what happens.
    once : bool
        Whether to stay for one run only.
    stopping : threading.Event
        Set when it is to end.
    """

    member: Membership
    home: Home
    store: ExampleStore
    base: Path | None
    trusted: frozenset[str]
    key: SigningKey = field(repr=False)
    verdict: Callable[[], Verdict]
    tell: Callable[[Event], None]
    once: bool = False
    stopping: Flag = field(default_factory=Flag)

    @property
    def willing(self) -> bool:
        """Whether person and policy would let it train now; if not, the reasons are told, here alone."""
        reasons = self.verdict().reasons if self.store.consent else ("no consent",)
        if reasons:
            self.tell(Declined(reasons))
        return not reasons

    @contextmanager
    def training(self) -> Iterator[None]:
        """Have the device to oneself for a round's work; what came of it may leave only if this ends without an error.

        Raises
        ------
        PolicyError
            When it may not train now, or consent was withdrawn or everything forgotten meanwhile; which of them is told
            here alone.
        """
        if not self.willing:
            raise _unwilling()
        try:
            with alone(self.home.lock):
                self.store.prune()
                began = self.store.generation
                yield
        except StoreError as error:
            self.tell(Declined((str(error),)))
            raise _unwilling() from None
        if self.store.generation != began or not self.store.consent:
            self.tell(Declined(("forgotten, or consent withdrawn, while it trained",)))
            raise _unwilling()


@dataclass(frozen=True, slots=True)
class Joined:
    """What taking part came to.

    Parameters
    ----------
    contributions : int
        Rounds that this device's updates went to.
    adopted : int or None
        The round of the newest global adapter that it got.
    """

    contributions: int
    adopted: int | None


class Enroller(Protocol):
    """Whatever makes a home a member's."""

    def __call__(self, home: Path, token: str) -> Membership:
        """Enrol, or raise and leave what the same call goes on with."""


class Joiner(Protocol):
    """Whatever takes part in rounds."""

    def __call__(self, seat: Seat) -> Joined:
        """Take part until the seat's flag is set, or the one run is over."""


def _unwilling() -> PolicyError:
    # One and the same for whatever reason: the battery, or a mind that was changed, is nobody else's affair.
    return PolicyError("device", "declined", "one that trains now", "ask it in another round")
