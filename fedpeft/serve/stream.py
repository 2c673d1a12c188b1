"""Answers on the wire: events as they come, and nothing left behind when a client goes away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from fedpeft.serve.answers import DONE, Answer, Usage, event, excuse
from fedpeft.serve.job import Said
from fedpeft.serve.listener import Listener

_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class EventStream(StreamingResponse):
    """A stream of events that is let go of, however it ends.

    Parameters
    ----------
    events : async iterator of bytes
    release : callable
        Called when it is over, also when the client was gone before the first event.
    timeout : float
        Seconds for all of it: a client that does not read must not keep its place.
    """

    def __init__(self, events: AsyncIterator[bytes], release: Callable[[], None], timeout: float) -> None:
        super().__init__(events, media_type="text/event-stream", headers=_HEADERS)
        self._release, self._timeout = [release], timeout

    def at_end(self, action: Callable[[], None]) -> None:
        """Add something to do when it is over."""
        self._release.append(action)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            async with asyncio.timeout(self._timeout):
                await super().__call__(scope, receive, send)
        except (TimeoutError, ClientDisconnect):
            return
        finally:
            for action in self._release:
                action()


async def events(
    answer: Answer, listener: Listener, prompt: int, *, usage: bool, first: Callable[[float], None]
) -> AsyncIterator[bytes]:
    """Turn what is said into events.

    Parameters
    ----------
    answer : Answer
    listener : Listener
    prompt : int
        Tokens read.
    usage : bool
        Tell the numbers of tokens at the end.
    first : callable
        Told the seconds from here to the first part.
    """
    begun = time.perf_counter()
    if opening := answer.opening():
        yield event(opening)
    heard = False
    async for said in listener.parts():
        if not heard:
            first(time.perf_counter() - begun)
            heard = True
        if said.reason not in (None, "stop", "length"):
            yield event(excuse(said.reason).body)
            return
        if said.text:
            yield event(answer.part(said.text, None))
        if said.reason is not None:
            yield event(answer.part("", said.reason))
            if usage:
                yield event(answer.closing(Usage(prompt, said.tokens)))
    yield DONE


async def whole(request: Request, listener: Listener, timeout: float) -> Said | None:
    """Wait for all of an answer, some seconds at most; None when the client went away."""
    answer = asyncio.ensure_future(anext(listener.parts()))
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        done, _ = await asyncio.wait({answer, gone}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            return Said("", 0, "timeout")
        return answer.result() if answer.done() else None
    finally:
        answer.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
