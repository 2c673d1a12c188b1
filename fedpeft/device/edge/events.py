"""What an observer hears of a device: never a word of what was written."""

from __future__ import annotations

from dataclasses import dataclass

from fedpeft.device.edge.policy import Verdict
from fedpeft.device.edge.training import Learned


@dataclass(frozen=True, slots=True)
class Kept:
    """Messages were stored."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Deleted:
    """A message was deleted; the adapter unlearns it when it is trained next."""

    id: str


@dataclass(frozen=True, slots=True)
class Consented:
    """The person agreed, or withdrew."""

    given: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """The policy does not let it train now."""

    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Started:
    """Training begins, on so many messages."""

    messages: int


@dataclass(frozen=True, slots=True)
class Personalized:
    """A new adapter was trained and answers from now on."""

    learned: Learned


@dataclass(frozen=True, slots=True)
class Forgotten:
    """So many messages and what was learnt from them are gone."""

    messages: int


@dataclass(frozen=True, slots=True)
class Enrolled:
    """The device is a member of a federation from now on, under this name."""

    client: str
    federation: str


@dataclass(frozen=True, slots=True)
class Linked:
    """Something happened on the way to the server, in one line."""

    line: str


@dataclass(frozen=True, slots=True)
class Declined:
    """The device was asked to train and did not; the server does not learn why."""

    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Contributed:
    """The masked update of a round is ready to leave."""

    round: int


@dataclass(frozen=True, slots=True)
class Adopted:
    """The global adapter of a round is installed; the next training builds on it."""

    round: int


Event = (
    Kept
    | Deleted
    | Consented
    | Refused
    | Started
    | Personalized
    | Forgotten
    | Enrolled
    | Linked
    | Declined
    | Contributed
    | Adopted
)
