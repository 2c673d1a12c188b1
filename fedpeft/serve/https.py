"""What any HTTPS service of ours stands on: a socket, TLS if wanted, and an end that leaves nobody without an answer.

No access log of uvicorn's, no server header, no trust in forwarded headers, and a bound on everything that is read
before somebody is known. At SIGTERM or Ctrl-C nothing new is accepted; answers that have begun get some seconds.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from math import ceil
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from fedpeft.errors import ServeError

_KEEP_ALIVE_S = 15
_HEADERS_BYTES = 16 << 10
_BACKLOG = 256
_CONNECTIONS = 256


class Server(uvicorn.Server):
    """Uvicorn, which tells whoever works for it when it is asked to end.

    Parameters
    ----------
    config : uvicorn.Config
    drain : callable
    """

    def __init__(self, config: uvicorn.Config, drain: Callable[[], None]) -> None:
        super().__init__(config)
        self._drain = drain

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End in order; a second signal ends at once. Uvicorn would raise the signal again when all is done."""
        self.force_exit = self.should_exit
        self.should_exit = True
        self._drain()


def listen(host: str, port: int) -> socket.socket:
    """Open the socket, before anything slow is loaded.

    Parameters
    ----------
    host : str
    port : int
        0 takes any that is free.

    Raises
    ------
    ServeError
        When the address cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except OSError as error:
        raise ServeError(
            f"address {host}:{port}", error.strerror, "one that is free", "choose another --port"
        ) from error
    return sock


def settings(
    app: Starlette, connections: int, drain_s: float, certfile: Path | None = None, keyfile: Path | None = None
) -> uvicorn.Config:
    """Return uvicorn's settings.

    Parameters
    ----------
    app : Starlette
    connections : int
        More are refused before they are read.
    drain_s : float
        Seconds for answers that have begun, when it is told to end.
    certfile, keyfile : Path, optional
        PEM files; HTTPS when both are given.

    Raises
    ------
    ServeError
        When the certificate cannot be used.
    """
    require_pair(certfile, keyfile)
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        http="h11",
        ws="none",
        limit_concurrency=connections,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=ceil(drain_s) + 2,
        h11_max_incomplete_event_size=_HEADERS_BYTES,
        ssl_certfile=certfile,
        ssl_keyfile=keyfile,
    )


def serve_https(app: Starlette, sock: socket.socket, certfile: Path, keyfile: Path) -> None:
    """Answer with an application that nobody has to wait for, until told to end.

    Raises
    ------
    ServeError
        When the certificate cannot be used.
    """
    Server(settings(app, _CONNECTIONS, 0.0, certfile, keyfile), lambda: None).run(sockets=[sock])


def require_pair(certfile: Path | None, keyfile: Path | None) -> None:
    """Refuse a certificate that TLS cannot use.

    Raises
    ------
    ServeError
        When one of the two is missing, unreadable, or they do not belong together.
    """
    if certfile is None and keyfile is None:
        return
    if certfile is None or keyfile is None:
        missing = "--certfile" if certfile is None else "--keyfile"
        raise ServeError(missing, None, "a PEM file: TLS takes a certificate and its key")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certfile, keyfile)
    except (OSError, ssl.SSLError) as error:
        raise ServeError(
            f"{certfile} and {keyfile}", error.strerror or str(error), "a certificate and its key"
        ) from error
