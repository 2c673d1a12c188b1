"""A TLS-terminating HTTP relay in front of a SuperLink: it counts what passes, and breaks it where it is told to.

Bytes are those of HTTP, heads included, inside TLS: what a device's link carries but for TLS records and TCP.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from fedpeft.federation.deployed.server_folder import ServerFolder
from fedpeft.federation.flower_link import trusting

_HOST, _PATIENCE = "127.0.0.1", 10.0
_REFUSAL = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 5\r\nconnection: close\r\n\r\nsorry"

Fault = Callable[[str], str]
"""Says of a request's first line what becomes of it: ``""``, or one of FAULTS."""

FAULTS = ("refuse", "cut-before", "cut-after", "truncate")
"""Answer 500; drop the request; pass it on and drop the answer; send half of the answer."""


@dataclass(frozen=True)
class Traffic:
    """What passed.

    Parameters
    ----------
    requests : int
    up, down : int
        Bytes of requests, and of answers.
    """

    requests: int = 0
    up: int = 0
    down: int = 0

    def __sub__(self, other: Traffic) -> Traffic:
        return Traffic(self.requests - other.requests, self.up - other.up, self.down - other.down)


class Relay:
    """Listens from the beginning and works from :meth:`start` on, in a thread: processes can be forked in between.

    Parameters
    ----------
    server : ServerFolder
        Its certificate is the relay's too.
    """

    def __init__(self, server: ServerFolder) -> None:
        self._socket = socket.create_server((_HOST, 0))
        self.address = f"{_HOST}:{self._socket.getsockname()[1]}"
        self._upstream = server.settings.port
        self._theirs, self._ours = trusting(server.ca), _serving(server.certificate, server.certificate_key)
        self.traffic = Traffic()
        self.fault: Fault = lambda line: ""
        self._began = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="relay", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        if self._thread.is_alive() and self._began.wait(_PATIENCE):
            self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join()
        self._socket.close()

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        # Connections that break are this relay's trade: nothing to log.
        self._loop.set_exception_handler(lambda loop, context: None)
        server = await asyncio.start_server(self._client, sock=self._socket, ssl=self._ours)
        self._began.set()
        await self._ended.wait()
        server.close()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            while request := await _message(reader):
                line = request.split(b"\r\n", 1)[0].decode("latin-1")
                fault = self.fault(line)
                self._count(requests=1, up=len(request))
                if fault == "cut-before":
                    return
                if fault == "refuse":
                    writer.write(_REFUSAL)
                    await writer.drain()
                    return
                upstream = upstream or await asyncio.open_connection(_HOST, self._upstream, ssl=self._theirs)
                upstream[1].write(request)
                answer = await _message(upstream[0])
                if fault == "cut-after" or not answer:
                    return
                self._count(down=len(answer))
                writer.write(answer[: len(answer) // 2] if fault else answer)
                await writer.drain()
                if fault:
                    return
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            return  # one of the two is gone
        finally:
            writer.close()
            if upstream:
                upstream[1].close()

    def _count(self, requests: int = 0, up: int = 0, down: int = 0) -> None:
        now = self.traffic
        self.traffic = replace(now, requests=now.requests + requests, up=now.up + up, down=now.down + down)


async def _message(reader: asyncio.StreamReader) -> bytes:
    """Read one request or answer as it is; nothing when the connection is closed instead."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
    if fields.get(b"transfer-encoding", b"").strip() == b"chunked":
        return head + await _chunks(reader)
    return head + await reader.readexactly(int(fields.get(b"content-length", b"0")))


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while True:
        size = await reader.readline()
        parts += [size, await reader.readexactly(int(size.split(b";")[0], 16) + 2)]
        if int(size.split(b";")[0], 16) == 0:
            return b"".join(parts)


def _serving(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
