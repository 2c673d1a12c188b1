"""A proxy that speaks TLS to both sides, counts what passes, and spoils what a test asks it to.

It has the server's own certificate, so nodes cannot tell it from the server, and it reads every request, so that a test
can say "the next object of a reply is cut off": :meth:`FaultyProxy.spoil`.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

PASS, CUT, CUT_REPLY, GARBAGE = "pass", "cut", "cut reply", "garbage"
"""Let a request through; break the connection before it arrives, or before its answer does; answer nonsense."""

_NOT_FORWARDED = {"host", "connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass(frozen=True)
class Asked:
    """One request.

    Parameters
    ----------
    at : float
        Monotonic seconds.
    route : str
        Last part of its path, such as ``pull-messages``.
    sent, received : int
        Bytes of its body and of the answer's.
    fault : str or int
    """

    at: float
    route: str
    sent: int
    received: int
    fault: str | int


@dataclass
class _Fault:
    route: str
    kind: str | int
    left: int
    least: int


@dataclass
class FaultyProxy:
    """Stands between nodes and a server for as long as a ``with`` block lasts.

    Parameters
    ----------
    certificate, key, authority : Path
        The server's, and who signed it.
    server : str
        ``host:port`` of the real one.
    """

    certificate: Path
    key: Path
    authority: Path
    server: str
    asked: list[Asked] = field(default_factory=list)
    _faults: list[_Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> FaultyProxy:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.proxy, self._http.trust = self, ssl.create_default_context(cafile=str(self.authority))
        self._http.context = context
        self.address = f"127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.shutdown()
        self._http.server_close()

    def spoil(self, route: str, kind: str | int, times: int = 1, least: int = 0) -> None:
        """Let the next requests fail.

        Parameters
        ----------
        route : str
            Last part of their path; empty for all.
        kind : str or int
            CUT, CUT_REPLY, GARBAGE, or a status to answer with.
        times : int
        least : int
            Bytes that a request's body must have to be spoilt; for CUT_REPLY, its answer's.
        """
        with self._lock:
            self._faults.append(_Fault(route, kind, times, least))

    @property
    def spoilt(self) -> bool:
        """Whether all the faults asked for have happened."""
        with self._lock:
            return not any(fault.left for fault in self._faults)

    def counts(self, since: float = 0.0) -> Counter[str]:
        """Return how many requests there were by route."""
        return Counter(asked.route for asked in list(self.asked) if asked.at >= since)

    def fault(self, route: str, size: int, answered: bool) -> str | int:
        """Return what is to happen to a request, or to the answer that has come to it."""
        with self._lock:
            for fault in self._faults:
                concerned = fault.route in ("", route) and size >= fault.least and (fault.kind == CUT_REPLY) == answered
                if fault.left and concerned:
                    fault.left -= 1
                    return fault.kind
        return PASS


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    proxy: FaultyProxy
    trust: ssl.SSLContext
    context: ssl.SSLContext

    def finish_request(self, request: Any, client_address: Any) -> None:
        # Shaken hands with in the connection's own thread: a slow or silent peer holds up nobody else.
        with self.context.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._pass_on()

    def do_POST(self) -> None:
        self._pass_on()

    def log_message(self, *_: object) -> None:
        pass

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        route = self.path.rpartition("/")[2]
        fault, at, received = self.server.proxy.fault(route, len(body), False), time.monotonic(), 0
        try:
            if fault == GARBAGE:
                self._answer(200, [], b"\xff\xfe garbage")
            elif isinstance(fault, int):
                self._answer(fault, [], b"<html>no</html>")
            elif fault == CUT:
                self._break()
            else:
                status, headers, answer = self._forward(body)
                received = len(answer)
                fault = self.server.proxy.fault(route, received, True)
                if fault == CUT_REPLY:
                    self._break()
                else:
                    self._answer(status, headers, answer)
        finally:
            self.server.proxy.asked.append(Asked(at, route, len(body), received, fault))

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        host, _, port = self.server.proxy.server.rpartition(":")
        line = HTTPSConnection(host, int(port), timeout=30, context=self.server.trust)
        headers = {key: value for key, value in self.headers.items() if key.lower() not in _NOT_FORWARDED}
        try:
            line.request(self.command, self.path, body, headers)
            answer = line.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        except (OSError, HTTPException):
            return 502, [], b"nobody there"
        finally:
            line.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for key, value in headers:
            if key.lower() not in _NOT_FORWARDED:
                self.send_header(key, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _break(self) -> None:
        self.close_connection = True
        # With a reset, as a router that forgot the connection would.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
