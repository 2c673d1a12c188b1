"""Reading what somebody sent, no more of it and no longer than is reasonable, and failing without repeating it."""

from __future__ import annotations

import asyncio

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fedpeft.serve.faults import Fault

_BODY_S = 10.0


async def read_body(request: Request, limit: int) -> bytes:
    """Return a request's body.

    Parameters
    ----------
    request : Request
    limit : int
        Most bytes.

    Raises
    ------
    Fault
        413 when it is longer, 408 when it does not come.
    """
    too_large = Fault(413, f"The body is larger than {limit} bytes.", code="request_too_large")
    if int(request.headers.get("content-length", 0)) > limit:
        raise too_large
    content = b""
    try:
        async with asyncio.timeout(_BODY_S):
            async for piece in request.stream():
                content += piece
                if len(content) > limit:
                    raise too_large
    except TimeoutError as error:
        raise Fault(408, "The body took too long to come.", code="timeout") from error
    return content


def place_of(error: BaseException) -> str:
    """Return where an error happened; its message could quote what was sent."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"


async def no_endpoint(_request: Request, error: Exception) -> Response:
    """Answer a request to what is not there."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    fault = Fault(status, "There is no such endpoint." if status == 404 else "Not allowed here.", code="not_found")
    return JSONResponse(fault.body, fault.status)
