"""The HTTP side: who asks, what for, and is there room.

==================================  ================================================================
``GET  /v1/models``                 the caller's adapters
``GET  /v1/models/NAME``            one of them
``POST /v1/completions``            how a text goes on
``POST /v1/chat/completions``       the next message of a conversation
``POST /v1/suggest``                the next words
``GET  /healthz``                   whether it answers; no token needed
``GET  /metrics``                   counters for Prometheus; an operator's token
==================================  ================================================================

A request is refused as early as it can be: its token first, then its size, its form, its place in the queue, and only
then its adapter is looked for and its text cut into tokens, on another thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fedpeft.serve.answers import Answer, Usage, excuse
from fedpeft.serve.faults import Fault, broken, malformed, no_model, unauthorized
from fedpeft.serve.guard import no_endpoint, place_of, read_body
from fedpeft.serve.limits import Admission
from fedpeft.serve.listener import Listener
from fedpeft.serve.metrics import CONTENT_TYPE
from fedpeft.serve.schema import ChatRequest, CompletionRequest, SuggestRequest
from fedpeft.serve.service import Service
from fedpeft.serve.stream import EventStream, events, whole
from fedpeft.serve.tokens import Caller

_log = logging.getLogger("fedpeft.serve")
_GONE = 499
"""What proxies write down when a client did not wait; nobody reads it."""

Body = TypeVar("Body", bound=BaseModel)
Handler = Callable[["Api", Request, Caller], Awaitable[Response]]


class Api:
    """The endpoints of one service.

    Parameters
    ----------
    service : Service
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.admission = Admission(service.limits)
        self._seconds = 1.0
        self._suggesting = asyncio.Semaphore(1)

    def app(self) -> Starlette:
        """Return the application."""
        endpoints: list[tuple[str, str, Handler]] = [
            ("GET", "/v1/models", Api.models),
            ("GET", "/v1/models/{name}", Api.model),
            ("POST", "/v1/completions", Api.completions),
            ("POST", "/v1/chat/completions", Api.chat),
            ("POST", "/v1/suggest", Api.suggest),
            ("GET", "/metrics", Api.metrics),
        ]
        routes = [Route(path, self._endpoint(path, handler), methods=[verb]) for verb, path, handler in endpoints]
        routes.append(Route("/healthz", self.health, methods=["GET"]))
        return Starlette(routes=routes, lifespan=self._lifespan, exception_handlers={HTTPException: no_endpoint})

    def drain(self) -> None:
        """Refuse what comes from now on, and what waits; any thread may call it."""
        self.admission.closed = True
        self.service.scheduler.drain(self.service.limits.drain_s)

    async def models(self, _request: Request, caller: Caller) -> Response:
        """List the caller's adapters."""
        models = await asyncio.to_thread(self.service.models, caller)
        return JSONResponse({"object": "list", "data": models})

    async def model(self, request: Request, caller: Caller) -> Response:
        """Describe one of the caller's adapters."""
        name = request.path_params["name"]
        found = [model for model in await asyncio.to_thread(self.service.models, caller) if model["id"] == name]
        if not found:
            raise no_model(name)
        return JSONResponse(found[0])

    async def completions(self, request: Request, caller: Caller) -> Response:
        """Continue a text."""
        ask = await self._parse(request, CompletionRequest)
        return await self._answer(request, caller, ask, ask.max_tokens or self.service.limits.tokens)

    async def chat(self, request: Request, caller: Caller) -> Response:
        """Say the next message."""
        ask = await self._parse(request, ChatRequest)
        tokens = ask.max_completion_tokens or ask.max_tokens or self.service.limits.tokens
        return await self._answer(request, caller, ask, tokens)

    async def suggest(self, request: Request, caller: Caller) -> Response:
        """Suggest words."""
        ask = await self._parse(request, SuggestRequest)
        with self.admission.enter(caller.user, self._seconds):
            async with self._suggesting:
                found = await asyncio.to_thread(self.service.suggest, caller, ask)
        words = [{"word": s.word, "probability": s.probability} for s in found]
        return JSONResponse({"object": "list", "model": ask.model, "data": words})

    async def metrics(self, _request: Request, caller: Caller) -> Response:
        """Give Prometheus the counters."""
        if not caller.operator:
            raise Fault(403, "This key may not read the metrics.", code="forbidden")
        return Response(self.service.metrics.text(), media_type=CONTENT_TYPE)

    async def health(self, _request: Request) -> Response:
        """Tell whether requests are answered."""
        well = self.service.scheduler.alive and not self.admission.closed
        return JSONResponse({"status": "ok" if well else "ending"}, 200 if well else 503)

    async def _answer(
        self, request: Request, caller: Caller, ask: CompletionRequest | ChatRequest, tokens: int
    ) -> Response:
        service, limits = self.service, self.service.limits
        listener = Listener(eager=ask.stream)
        answer = Answer("chat" if isinstance(ask, ChatRequest) else "completion", ask.model, service.base)
        with ExitStack() as held:
            held.enter_context(self.admission.enter(caller.user, self._seconds))
            held.callback(self._learn, time.perf_counter())
            prompt, job = await asyncio.to_thread(service.job, caller, ask, tokens, listener.deliver)
            held.callback(service.scheduler.cancel, job)
            service.scheduler.submit(job)
            if ask.stream:
                usage = ask.stream_options is not None and ask.stream_options.include_usage
                first = service.metrics.first_token_seconds.observe
                parts = events(answer, listener, len(prompt.ids), usage=usage, first=first)
                return EventStream(parts, held.pop_all().close, limits.timeout_s + limits.drain_s)
            said = await whole(request, listener, limits.timeout_s + limits.drain_s)
        if said is None:
            return Response(status_code=_GONE)
        if said.reason not in ("stop", "length"):
            raise excuse(said.reason or "failed")
        return JSONResponse(answer.whole(said.text, said.reason, Usage(len(prompt.ids), said.tokens)))

    def _learn(self, since: float) -> None:
        self._seconds += 0.1 * (time.perf_counter() - since - self._seconds)

    async def _parse(self, request: Request, form: type[Body]) -> Body:
        content = await read_body(request, self.service.limits.body_bytes)
        try:
            return form.model_validate_json(content)
        except ValidationError as error:
            raise malformed(error) from None

    def _endpoint(self, path: str, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            begun = time.perf_counter()
            user = "-"
            try:
                caller = await asyncio.to_thread(self._caller, request)
                user = caller.user
                response = await handler(self, request, caller)
            except Fault as fault:
                response = JSONResponse(fault.body, fault.status, fault.headers)
            except ClientDisconnect:
                response = Response(status_code=_GONE)
            except Exception as error:
                # The message could quote what was asked; the place is enough to look for it.
                _log.error("%s failed at %s: %s", path, place_of(error), type(error).__name__)
                response = JSONResponse(broken().body, broken().status)
            note = partial(self._note, path, user, response, begun)
            if isinstance(response, EventStream):
                response.at_end(note)
            else:
                note()
            return response

        return endpoint

    def _caller(self, request: Request) -> Caller:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        caller = self.service.tokens.find(token.strip()) if scheme.lower() == "bearer" else None
        if caller is None:
            raise unauthorized()
        return caller

    def _note(self, path: str, user: str, response: Response, begun: float) -> None:
        seconds = time.perf_counter() - begun
        self.service.metrics.requests.labels(path, response.status_code).inc()
        self.service.metrics.seconds.labels(path).observe(seconds)
        _log.info("%s %d %s %.0f ms", path, response.status_code, user, 1e3 * seconds)

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(self.service.close)
