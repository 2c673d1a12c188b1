"""How often one address may ask: a bucket that fills by the minute. Guessing is hopeless anyway; this is for the load.

An IPv6 address stands for its /64, which is what one household has.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

_MOST_KNOWN = 4096
_NETWORK = 64


class Rate:
    """Buckets by address; of those who have not asked for longest, none is kept.

    Parameters
    ----------
    per_minute : int
        Requests of one address; as many may come at once.
    clock : callable
        Seconds.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = float(per_minute), clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, address: str) -> float:
        """Count a request; return 0 when it may be answered, or after how many seconds another may."""
        now, key = self._clock(), household(address)
        left, since = self._buckets.pop(key, (self._most, now))
        left = min(self._most, left + (now - since) * self._most / 60)
        refused = left < 1
        self._buckets[key] = (left if refused else left - 1, now)
        if len(self._buckets) > _MOST_KNOWN:
            self._buckets.popitem(last=False)
        return (1 - left) * 60 / self._most if refused else 0.0


def household(address: str) -> str:
    """Return what requests are counted by."""
    try:
        found = ip_address(address)
    except ValueError:
        return ""
    if isinstance(found, IPv6Address) and found.ipv4_mapped is None:
        return str(IPv6Address(int(found) >> _NETWORK << _NETWORK))
    return str(found)
