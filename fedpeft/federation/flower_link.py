"""What every client of a SuperLink needs of private Flower: its TLS, its version headers, and errors put into ours.

Flower's own version interceptor ends the whole process when versions differ, which an app would not forgive; here it is
an error like others.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
from flwr.supercore.error import FlowerError
from flwr.supercore.interceptors.http.utils import add_headers
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufClientInterceptor, ProtobufRequestContext
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata

from fedpeft.errors import LinkError, MessageGone
from fedpeft.federation.flower_internals import require_flower

TIMEOUT = 30.0
"""Seconds without a byte after which a request has failed."""

_GONE = (httpx.codes.FORBIDDEN, httpx.codes.NOT_FOUND, httpx.codes.PRECONDITION_FAILED)


class Versions:
    """Tells the SuperLink which Flower this is."""

    def __init__(self, component: str) -> None:
        require_flower()
        self._headers = dict(RuntimeVersionMetadata.from_local_component(component).as_metadata())

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Add the headers."""
        add_headers(context.request, self._headers)
        return call_next(context)


class Arguments:
    """The keyword arguments that all of Flower's HTTP clients take."""

    def __init__(self, root: Path, interceptors: Sequence[ProtobufClientInterceptor]) -> None:
        self.interceptors = list(interceptors)
        self.verify = trusting(root)
        self.timeout = TIMEOUT


def trusting(root: Path) -> ssl.SSLContext:
    """Return a TLS context that trusts one authority.

    Raises
    ------
    LinkError
        When the file holds no certificate.
    """
    try:
        return ssl.create_default_context(cafile=str(root))
    except (OSError, ssl.SSLError) as error:
        raise LinkError(f"authority {root}", str(error), "ca.pem of the server") from error


@contextmanager
def translated(what: str, server: str) -> Iterator[None]:
    """Turn whatever may go wrong between here and a SuperLink into one line.

    Raises
    ------
    MessageGone
        When the SuperLink says that the run or the object is not there any more.
    LinkError
        Otherwise.
    """
    where = f"{what} at {server}"
    try:
        yield
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        kind = MessageGone if status in _GONE else LinkError
        raise kind(where, f"HTTP {status} {_reason(error.response)}".strip(), "an answer", _remedy(status)) from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise LinkError(where, f"{type(error).__name__}: {error}"[:200], "an answer") from error
    except (ValueError, TypeError, KeyError) as error:
        # What came back could not be read; never more of it in the line than its beginning.
        raise LinkError(where, str(error)[:120], "an answer of Flower's") from error


def skew(response: httpx.Response, here: float) -> float | None:
    """Return by how many seconds the server's clock is ahead, by its own word."""
    try:
        return parsedate_to_datetime(response.headers["date"]).timestamp() - here
    except (KeyError, ValueError, TypeError):
        return None


def _reason(response: httpx.Response) -> str:
    try:
        error = FlowerError.from_json(response.text)
    except (ValueError, TypeError, KeyError):
        error = None
    return error.message[:160] if error else ""


def _remedy(status: int) -> str:
    if status == httpx.codes.UNAUTHORIZED:
        return "have this node's key registered (`fedpeft server enrol`), and set the clock"
    return ""
