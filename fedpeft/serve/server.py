"""The process: a socket, TLS if wanted, and an end that leaves nobody without an answer.

At SIGTERM or Ctrl-C nothing new is accepted and whoever waits is refused; answers that have begun get ``drain_s``
seconds to be finished.
"""

from __future__ import annotations

import socket
from pathlib import Path

import uvicorn

from fedpeft.serve.app import Api
from fedpeft.serve.https import Server, settings
from fedpeft.serve.service import Service

_CONNECTIONS = 256
"""Besides four for every request that may be under way; more are refused before they are read."""


def serve(service: Service, sock: socket.socket, certfile: Path | None = None, keyfile: Path | None = None) -> None:
    """Answer until told to end.

    Parameters
    ----------
    service : Service
        Closed at the end.
    sock : socket
        From :func:`.https.listen`.
    certfile, keyfile : Path, optional
        PEM files; HTTPS when both are given.

    Raises
    ------
    ServeError
        When the certificate cannot be used.
    """
    api = Api(service)
    Server(configuration(api, certfile, keyfile), api.drain).run(sockets=[sock])


def configuration(api: Api, certfile: Path | None = None, keyfile: Path | None = None) -> uvicorn.Config:
    """Return uvicorn's settings for the service."""
    limits = api.service.limits
    return settings(api.app(), _CONNECTIONS + 4 * limits.queue, limits.drain_s, certfile, keyfile)
