"""A device over a real run's bundles, and one person's real messages as if they had just been written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from functools import partial
from pathlib import Path

import pytest

from fedpeft.data.keyboard import KeyboardFederation
from fedpeft.device import EdgeClient
from fedpeft.device.edge.example import Written
from fedpeft.device.edge.policy import CONDITIONS, Conditions, Policy
from fedpeft.device.edge.probes import Probes

FINE = Conditions(charging=True, battery=1.0, idle=1e6, metered=False, temperature=30.0, memory=1 << 40)


def probes(found: Conditions) -> Probes:
    """Answer as a device in these conditions would."""
    return Probes(**{field.name: partial(getattr, found, field.name) for field in fields(found)})


def persons_messages(client: str, latest: int) -> list[Written]:
    """Return somebody's latest messages and what they answered, moved in time to end now."""
    talks = KeyboardFederation().conversations(client)
    found = [Written(m.text, m.mine, str(n), m.time) for n, talk in enumerate(talks) for m in talk]
    found = sorted(found, key=lambda m: m.time or 0.0)[-latest:]
    now, first, last = time.time(), found[0].time or 0.0, found[-1].time or 1.0
    # Their order and nothing else is of interest, and the store drops what is half a year old.
    return [
        Written(m.text, m.mine, m.conversation, now - 3600 * (1 - ((m.time or 0.0) - first) / (last - first)))
        for m in found
    ]


def in_a_loop(work: Callable[[], Coroutine[object, object, None]]) -> None:
    """Run what an asynchronous app does, in a thread: in a worker's own another test may have left a loop marked as running."""
    with ThreadPoolExecutor(1) as alone:
        alone.submit(lambda: asyncio.run(work())).result()


@pytest.fixture
def device(run: Path, tmp_path: Path) -> Callable[..., EdgeClient]:
    """Return what opens the same device again and again, over bundles made for tests."""

    def open_device(adapter: str | None = "ada", **options) -> EdgeClient:
        options.setdefault("probes", probes(FINE))
        options.setdefault("policy", Policy(assumed=frozenset(CONDITIONS)))
        folder = run / "device"
        return EdgeClient(tmp_path / "me", folder / "base", adapter and folder / "adapters" / adapter, **options)

    return open_device
