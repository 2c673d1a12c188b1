"""The same device for asynchronous apps: what takes time runs in a thread, and the loop goes on."""

from __future__ import annotations

from asyncio import CancelledError, to_thread
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self, Unpack

from fedpeft.device.edge.client import EdgeClient
from fedpeft.device.edge.example import Written
from fedpeft.device.edge.joining import Enroller, Joined, Joiner
from fedpeft.device.edge.policy import Policy, Verdict
from fedpeft.device.edge.store import Contents
from fedpeft.device.edge.training import Learned, Trainer
from fedpeft.device.generation import DEFAULT, Generation, Settings
from fedpeft.device.suggest import Suggestion


class AsyncEdgeClient:
    """Coroutines for the methods of an :class:`.client.EdgeClient`, whose documentation holds here.

    A coroutine that is cancelled stops waiting; what its thread has begun, it ends.

    Parameters
    ----------
    client : EdgeClient
    """

    def __init__(self, client: EdgeClient) -> None:
        self.client = client

    @classmethod
    async def enrol(cls, home: Path, token: str, enroller: Enroller, **options: Any) -> Self:
        """Make a home a member of a federation, and open it."""
        return cls(await to_thread(EdgeClient.enrol, home, token, enroller, **options))

    async def join(self, joiner: Joiner, policy: Policy | None = None, *, once: bool = False) -> Joined:
        """Take part in rounds until it is cancelled, or :meth:`stop`; either way what is in hand is ended."""
        try:
            return await to_thread(self.client.join, joiner, policy, once=once)
        except CancelledError:
            self.client.stop()
            raise

    def stop(self) -> None:
        """Let :meth:`join` end."""
        self.client.stop()

    async def agree(self) -> None:
        """Note that the person agrees."""
        await to_thread(self.client.agree)

    async def withdraw(self) -> None:
        """Note that the person does not agree any more."""
        await to_thread(self.client.withdraw)

    async def add(self, text: str, *, mine: bool = True, conversation: str = "", time: float | None = None) -> str:
        """Keep a message."""
        return await to_thread(self.client.add, text, mine=mine, conversation=conversation, time=time)

    async def extend(self, messages: Iterable[Written]) -> list[str]:
        """Keep many messages, all or none."""
        return await to_thread(self.client.extend, messages)

    async def delete(self, id_: str) -> None:
        """Delete one message."""
        await to_thread(self.client.delete, id_)

    async def contents(self) -> Contents:
        """Say how much is kept."""
        return await to_thread(self.client.contents)

    async def suggest(self, typed: str, count: int = 3) -> list[Suggestion]:
        """Return the likeliest next words."""
        return await to_thread(self.client.suggest, typed, count)

    async def generate(self, prompt: str, options: Generation = DEFAULT, **settings: Unpack[Settings]) -> str:
        """Return how a message goes on."""
        return await to_thread(self.client.generate, prompt, options, **settings)

    async def verdict(self, policy: Policy | None = None) -> Verdict:
        """Say whether the device may train now."""
        return await to_thread(self.client.verdict, policy)

    async def personalize(self, trainer: Trainer, policy: Policy | None = None) -> Learned:
        """Train the personal adapter and let it answer."""
        return await to_thread(self.client.personalize, trainer, policy)

    async def forget(self) -> int:
        """Delete everything."""
        return await to_thread(self.client.forget)
