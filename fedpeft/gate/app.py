"""The gate's HTTP side.

==========================  ===========================================================================
``GET  /gate/federation``   what everybody may know of the federation; see :mod:`.notice`
``POST /gate/enrol``        ``{token, request}``, both strings: answers with the certificate
==========================  ===========================================================================

It holds the authority's key and is no part of the server that aggregates. What is sent here is never logged, and every
token that is not accepted is refused alike.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from fedpeft.errors import FedpeftError, TokenError
from fedpeft.gate.notice import ENROL, FEDERATION, Notice
from fedpeft.gate.rate import Rate
from fedpeft.gate.token import ID, SECRET
from fedpeft.gate.tokens import Tokens
from fedpeft.secagg.trust.enrolling import answer, parse_request
from fedpeft.serve.faults import Fault, broken, malformed, overloaded
from fedpeft.serve.guard import no_endpoint, place_of, read_body

_log = logging.getLogger("fedpeft.gate")
_BODY_BYTES = 16 << 10
_GONE = 499

_Handler = Callable[[Request], Awaitable[Response]]


class EnrolRequest(BaseModel):
    """The body of ``POST /gate/enrol``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    token: str = Field(pattern=f"^[0-9a-f]{{{2 * (ID + SECRET)}}}$", description="Id and secret, in hexadecimal.")
    request: str = Field(max_length=_BODY_BYTES, description="What `fedpeft client request` writes.")


@dataclass(frozen=True)
class Gate:
    """A federation's gate.

    Parameters
    ----------
    notice : Notice
    tokens : Tokens
    days : int
        For how long certificates hold.
    per_minute : int
        Requests that one address may make.
    """

    notice: Notice
    tokens: Tokens
    days: int = 365
    per_minute: int = 120

    def app(self, routes: Sequence[BaseRoute] = ()) -> Starlette:
        """Return the application.

        Parameters
        ----------
        routes : sequence of BaseRoute, optional
            What else is served here, such as downloads of adapters.
        """
        rate, posted = Rate(self.per_minute), self.notice.to_bytes()

        async def federation(_request: Request) -> Response:
            return Response(posted, media_type="application/json")

        async def enrol(request: Request) -> Response:
            try:
                asked = EnrolRequest.model_validate_json(await read_body(request, _BODY_BYTES))
            except ValidationError as error:
                raise malformed(error) from None
            return JSONResponse({"answer": await asyncio.to_thread(self.enrol, asked)})

        own = [
            Route(FEDERATION, _guarded(federation, rate), methods=["GET"]),
            Route(ENROL, _guarded(enrol, rate), methods=["POST"]),
        ]
        return Starlette(routes=[*own, *routes], exception_handlers={HTTPException: no_endpoint})

    def enrol(self, asked: EnrolRequest) -> str:
        """Return the answer with a certificate.

        Raises
        ------
        Fault
            403 for any token that is not accepted, 400 for a request that proves nothing.
        """
        given = bytes.fromhex(asked.token)
        try:
            request = parse_request(asked.request.encode("utf-8", "replace"), self.notice.federation, "request")
            certificate = self.tokens.redeem(given[:ID], given[ID:], request, self.days)
        except TokenError:
            _log.info("%s refused", ENROL)
            raise Fault(403, "The token is not accepted: it is unknown, used, expired or another's.") from None
        except FedpeftError as error:
            _log.info("%s malformed: %s", ENROL, error.field)
            raise Fault(400, f"{error.field}: expected {error.expected}") from None
        _log.info("%s certified %s", ENROL, request.client)
        return answer(request.client, certificate)


def _guarded(handler: _Handler, rate: Rate) -> _Handler:
    """Answer whatever happens, and say nothing of what was sent."""

    async def endpoint(request: Request) -> Response:
        try:
            _admit(rate, request)
            return await handler(request)
        except Fault as fault:
            return JSONResponse(fault.body, fault.status, fault.headers)
        except ClientDisconnect:
            return Response(status_code=_GONE)
        except Exception as error:
            _log.error("%s failed at %s: %s", request.url.path, place_of(error), type(error).__name__)
            return JSONResponse(broken().body, broken().status)

    return endpoint


def _admit(rate: Rate, request: Request) -> None:
    wait = rate.wait(request.client.host if request.client else "")
    if wait:
        raise overloaded("Too many requests from this address.", wait)
