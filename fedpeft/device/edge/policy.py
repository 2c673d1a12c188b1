"""When a device may train: a pure decision over what is known of it, with every reason.

A condition that no probe knows is decided as the policy says: those in ``assumed`` are taken to be fine, the others
are a reason not to train. The verdict names both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import time
from typing import Any

from fedpeft.errors import PolicyError, nearest

CONDITIONS = frozenset({"charging", "battery", "idle", "unmetered", "hours", "temperature", "memory"})
"""The names of what a policy looks at."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What is known of a device at one moment; None where nobody can tell.

    Parameters
    ----------
    charging : bool or None
    battery : float or None
        How full it is, in [0, 1].
    idle : float or None
        Seconds since somebody used it.
    metered : bool or None
        Whether the network costs by the byte.
    clock : datetime.time or None
        The local time of day.
    temperature : float or None
        Of the hottest sensor, in °C.
    memory : int or None
        Bytes that are free for use.
    """

    charging: bool | None = None
    battery: float | None = None
    idle: float | None = None
    metered: bool | None = None
    clock: time | None = None
    temperature: float | None = None
    memory: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether to train, and why.

    Parameters
    ----------
    reasons : tuple of str
        Against it, one for each condition that is not met; none when it is allowed.
    unknown : tuple of str
        Conditions that nobody could tell, whichever way they were decided.
    """

    reasons: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons

    def require(self) -> None:
        """Refuse to go on when it is not allowed.

        Raises
        ------
        PolicyError
        """
        if self.reasons:
            raise PolicyError("policy", "; ".join(self.reasons), "every condition to be met", "wait, or relax it")


@dataclass(frozen=True, slots=True)
class Policy:
    """What must hold while a device trains. A limit of None asks nothing.

    Parameters
    ----------
    charging : bool
        Only while it charges.
    battery : float or None
        Least charge, in [0, 1].
    idle : float or None
        Least seconds since somebody used it.
    unmetered : bool
        Only on a network that does not cost by the byte. Training at home needs no network: see :meth:`offline`.
    hours : (datetime.time, datetime.time) or None
        From, until; over midnight when the first is the later one.
    temperature : float or None
        Most, in °C.
    memory : int or None
        Least bytes that are free.
    assumed : frozenset of str
        Conditions that are taken to be fine where nobody can tell.

    Raises
    ------
    PolicyError
        When a limit or a name makes no sense.
    """

    charging: bool = True
    battery: float | None = 0.3
    idle: float | None = 60.0
    unmetered: bool = True
    hours: tuple[time, time] | None = None
    temperature: float | None = 80.0
    memory: int | None = 1 << 30
    assumed: frozenset[str] = CONDITIONS

    def __post_init__(self) -> None:
        if self.battery is not None and not 0 <= self.battery <= 1:
            raise PolicyError("policy.battery", self.battery, "a share from 0 to 1")
        for field in ("idle", "memory"):
            value = getattr(self, field)
            if value is not None and not value >= 0:
                raise PolicyError(f"policy.{field}", value, "0 or more")
        for name in sorted(self.assumed - CONDITIONS):
            raise PolicyError("policy.assumed", name, "a condition", nearest(name, CONDITIONS))

    def offline(self) -> Policy:
        """Return the same for work that needs no network."""
        return replace(self, unmetered=False)

    def allows(self, found: Conditions) -> Verdict:
        """Decide.

        Parameters
        ----------
        found : Conditions

        Returns
        -------
        Verdict
        """
        reasons, unknown = [], []
        for name, value, met, reason in self._asked(found):
            if value is None:
                unknown.append(name)
                if name not in self.assumed:
                    reasons.append(f"{name} is not known")
            elif not met:
                reasons.append(reason)
        return Verdict(tuple(reasons), tuple(unknown))

    def _asked(self, found: Conditions) -> Iterator[tuple[str, Any, bool, str]]:
        """Yield name, value, whether it is met, and why not, of each condition that the policy has."""
        if self.charging:
            yield "charging", found.charging, bool(found.charging), "it is not charging"
        if self.battery is not None:
            share = found.battery or 0.0
            yield "battery", found.battery, share >= self.battery, f"the battery has {share:.0%} of {self.battery:.0%}"
        if self.idle is not None:
            since = found.idle or 0.0
            yield "idle", found.idle, since >= self.idle, f"it was used {since:.0f} s ago, not {self.idle:.0f} s"
        if self.unmetered:
            yield "unmetered", found.metered, not found.metered, "the network costs by the byte"
        if self.hours is not None:
            start, end = self.hours
            reason = f"it is {found.clock:%H:%M}, not {start:%H:%M} to {end:%H:%M}" if found.clock else ""
            yield "hours", found.clock, _within(found.clock or start, start, end), reason
        if self.temperature is not None:
            heat = found.temperature or 0.0
            yield "temperature", found.temperature, heat <= self.temperature, f"{heat:.0f} °C is too hot"
        if self.memory is not None:
            free = found.memory or 0
            reason = f"{free >> 20} MiB are free, not {self.memory >> 20}"
            yield "memory", found.memory, free >= self.memory, reason


ANYTIME = Policy(charging=False, battery=None, idle=None, unmetered=False, temperature=None, memory=None)
"""Asks nothing: for a person who says "now"."""


def _within(now: time, start: time, end: time) -> bool:
    """Say whether a time of day is in [start, end), which may go over midnight; all day when both are equal."""
    if start < end:
        return start <= now < end
    return now >= start or now < end
