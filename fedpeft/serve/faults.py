"""What went wrong with a request, in the shape that OpenAI's clients read."""

from __future__ import annotations

from math import ceil
from typing import Any

from pydantic import ValidationError

INVALID = "invalid_request_error"
LONGEST_WAIT = 60
"""Seconds; nobody is sent away for longer."""


class Fault(Exception):  # noqa: N818
    """A request that is not answered.

    Parameters
    ----------
    status : int
        Of HTTP.
    message : str
        For the caller; never another person's data.
    kind : str
        OpenAI's ``type``.
    param : str, optional
        The field that is wrong.
    code : str, optional
        OpenAI's ``code``.
    retry_after : float, optional
        Seconds until it is worth another try.
    """

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = INVALID,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after
        self.body: dict[str, Any] = {"error": {"message": message, "type": kind, "param": param, "code": code}}

    @property
    def headers(self) -> dict[str, str]:
        """Headers that belong to it."""
        found = {}
        if self.retry_after is not None:
            found["Retry-After"] = str(min(LONGEST_WAIT, max(1, ceil(self.retry_after))))
        if self.status == 401:
            found["WWW-Authenticate"] = "Bearer"
        return found


def unauthorized() -> Fault:
    """No token, or none that is known: which of the two is not said."""
    return Fault(401, "Incorrect API key provided.", code="invalid_api_key")


def no_model(name: str) -> Fault:
    """Nobody's adapter, or somebody else's: which of the two is not said."""
    return Fault(404, f"The model {name!r} does not exist or you do not have access to it.", code="model_not_found")


def overloaded(reason: str, seconds: float) -> Fault:
    """Too much at once."""
    return Fault(429, f"{reason} Try again later.", "rate_limit_error", code="rate_limit_exceeded", retry_after=seconds)


def broken() -> Fault:
    """Our own mistake, of which the caller learns no more."""
    return Fault(500, "The service failed to answer. Try again.", "server_error", code="internal_error")


def malformed(error: ValidationError) -> Fault:
    """Say what is wrong with a request's body, naming the first field."""
    complaint = error.errors(include_url=False, include_input=False, include_context=False)[0]
    path = ".".join(str(part) for part in complaint["loc"] if not str(part).startswith(("function-", "list[", "str")))
    if complaint["type"] == "extra_forbidden":
        return Fault(400, f"Unrecognized request argument supplied: {path}", param=path, code="unknown_parameter")
    if complaint["type"] == "missing":
        return Fault(400, f"Missing required parameter: {path}", param=path, code="missing_required_parameter")
    where = f"Invalid value for {path}" if path else "Invalid request"
    return Fault(400, f"{where}: {complaint['msg']}", param=path or None, code="invalid_value")
