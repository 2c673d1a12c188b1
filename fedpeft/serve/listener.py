"""From the scheduler's thread to the event loop: what an answer says, as it is said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from fedpeft.serve.job import Said


class Listener:
    """Hears one job.

    Parameters
    ----------
    eager : bool
        Pass every part on; otherwise only all of it at the end, which wakes the event loop once.
    """

    def __init__(self, *, eager: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._heard: asyncio.Queue[Said] = asyncio.Queue()
        self._eager, self._parts = eager, ""

    def deliver(self, said: Said) -> None:
        """Take what was said, on any thread."""
        if not self._eager:
            self._parts += said.text
            if said.reason is None:
                return
            said = Said(self._parts, said.tokens, said.reason)
        with suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._heard.put_nowait, said)

    async def parts(self) -> AsyncIterator[Said]:
        """Yield what is said, the last with its reason."""
        while True:
            said = await self._heard.get()
            yield said
            if said.reason is not None:
                return
