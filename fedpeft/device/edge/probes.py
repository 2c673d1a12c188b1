"""What a device says of itself: one probe for each condition, each of which may answer None for "I cannot know".

The defaults ask psutil, where it is installed. No such library knows on every system what a network costs or whether
somebody sits in front of a screen: apps bring their own probes for these, and an :class:`.client.EdgeClient` counts as
idle the time since it was used itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import datetime, time
from typing import Any, TypeVar

from fedpeft.device.edge.policy import Conditions

T = TypeVar("T")
Probe = Callable[[], T | None]


def _unknown() -> None:
    return None


def _system() -> Any:
    """Return psutil, or None where it is not installed."""
    try:
        import psutil
    except ImportError:
        return None
    return psutil


def _charge() -> Any:
    system = _system()
    # Systems without such sensors have no such function, or fail when it is called.
    try:
        return system.sensors_battery()
    except (AttributeError, OSError, NotImplementedError):
        return None


def charging() -> bool | None:
    """Say whether the power is plugged in; unknown where there is no battery to ask."""
    charge = _charge()
    return None if charge is None or charge.power_plugged is None else bool(charge.power_plugged)


def battery() -> float | None:
    """Return how full the battery is, in [0, 1]."""
    charge = _charge()
    return None if charge is None else min(max(float(charge.percent) / 100, 0.0), 1.0)


def temperature() -> float | None:
    """Return the hottest sensor's temperature in °C."""
    system = _system()
    try:
        found = [float(s.current) for sensors in system.sensors_temperatures().values() for s in sensors]
    except (AttributeError, OSError, NotImplementedError):
        return None
    return max(found, default=None)


def memory() -> int | None:
    """Return how many bytes could be used without swapping."""
    system = _system()
    return None if system is None else int(system.virtual_memory().available)


def clock() -> time:
    """Return the local time of day."""
    return datetime.now().astimezone().time()


@dataclass(frozen=True, slots=True)
class Probes:
    """How each condition is found out; give a callable of your own for any of them."""

    charging: Probe[bool] = charging
    battery: Probe[float] = battery
    idle: Probe[float] = _unknown
    metered: Probe[bool] = _unknown
    clock: Probe[time] = clock
    temperature: Probe[float] = temperature
    memory: Probe[int] = memory

    def look(self) -> Conditions:
        """Ask all of them, now."""
        return Conditions(**{field.name: getattr(self, field.name)() for field in fields(self)})
