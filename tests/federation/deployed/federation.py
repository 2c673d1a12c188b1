"""A small federation with real processes on loopback: what :mod:`fedpeft.bench.loopback` has, and waiting for it."""

from __future__ import annotations

import time
from collections.abc import Callable

from fedpeft.bench.loopback import QUICK, Node, enrol, found

__all__ = ["QUICK", "Node", "enrol", "found", "until"]


def until(holds: Callable[[], bool], seconds: float, what: Callable[[], str]) -> None:
    """Wait for something, and say what there was instead."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, what()
        time.sleep(0.1)
