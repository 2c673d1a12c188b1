"""A shelf served by TLS on loopback, by the real routes, over a network that can be told to be bad."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from fedpeft.registry.routes import routes
from fedpeft.serve.https import Server, listen, settings
from fedpeft.signing.tls import make_certificates

Message = MutableMapping[str, Any]


class Spoilt:
    """An application whose answers are spoilt as ``spoil`` says, once each.

    ``spoil`` is a list of ``(part of the path, how)``; how is ``500``, ``("cut", bytes)``, ``"norange"``, ``"flip"``,
    ``"long"``, ``"page"`` or ``("hold", event)``.
    """

    def __init__(self, app: Starlette) -> None:
        self.app, self.spoil, self.asked = app, list[tuple[str, Any]](), list[tuple[str, str]]()
        self.sent = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        ranged = dict(scope["headers"]).get(b"range", b"").decode()
        self.asked.append((scope["path"], ranged))
        how = next((entry for entry in self.spoil if entry[0] in scope["path"]), None)
        if how is None:
            await self.app(scope, receive, self._counting(send))
            return
        self.spoil.remove(how)
        await self._spoilt(how[1], scope, receive, send)

    def _counting(self, send: Any) -> Callable[[Message], Any]:
        async def counted(message: Message) -> None:
            self.sent += len(message.get("body", b""))
            await send(message)

        return counted

    async def _spoilt(self, how: Any, scope: Any, receive: Any, send: Any) -> None:
        send = self._counting(send)
        if isinstance(how, int) or how == "page":
            status, body = (200, b"<html>log in first</html>") if how == "page" else (how, b"oh")
            headers = [(b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        if how == "norange":
            scope = {**scope, "headers": [h for h in scope["headers"] if h[0] != b"range"]}
            await self.app(scope, receive, send)
            return
        left = how[1] if how[0] == "cut" else 1 << 40

        async def spoiling(message: Message) -> None:
            nonlocal left
            if message["type"] == "http.response.body":
                body = message.get("body", b"")
                if how == "flip" and body:
                    message = {**message, "body": bytes([body[0] ^ 1]) + body[1:]}
                if len(body) > left:
                    await send({**message, "body": body[:left], "more_body": True})
                    raise ConnectionAbortedError  # the server hangs up in the middle
                left -= len(body)
            elif how == "long":
                kept = [h for h in message["headers"] if h[0] != b"content-length"]
                message = {**message, "headers": kept}  # chunked: no length is announced
            if how == "long" and message["type"] == "http.response.body" and not message.get("more_body"):
                message = {**message, "body": message.get("body", b"") + b"more than was signed"}
            await send(message)

        await self.app(scope, receive, spoiling)


class Served:
    """Where a shelf is served, and its spoilt application."""

    def __init__(self, url: str, ca: Path, app: Spoilt, port: int) -> None:
        self.url, self.ca, self.app, self.port = url, ca, app, port


@contextmanager
def served(shelf: Path, tls: Path) -> Iterator[Served]:
    """Serve a shelf for a while."""
    if not tls.exists():
        make_certificates(tls, "chat", [])
    app = Spoilt(Starlette(routes=routes(shelf)))
    sock = listen("127.0.0.1", 0)
    server = Server(settings(app, 64, 0.0, tls / "server.pem", tls / "server.key"), lambda: None)  # type: ignore[arg-type]
    thread = threading.Thread(target=lambda: server.run(sockets=[sock]), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = sock.getsockname()[1]
    try:
        yield Served(f"https://localhost:{port}", tls / "ca.pem", app, port)
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)


@contextmanager
def cutting(port: int, limits: list[int]) -> Iterator[int]:
    """Pass connections on, each until so many bytes came back; without limits left, for ever. Yields the port."""
    with closing(socket.create_server(("127.0.0.1", 0))) as front:
        threading.Thread(target=lambda: _accept(front, port, limits), daemon=True).start()
        yield front.getsockname()[1]


def _accept(front: socket.socket, port: int, limits: list[int]) -> None:
    while True:
        try:
            here, _ = front.accept()
        except OSError:
            return
        there = socket.create_connection(("127.0.0.1", port))
        most = limits.pop(0) if limits else 1 << 40
        for source, sink, left in ((here, there, 1 << 40), (there, here, most)):
            threading.Thread(target=_pump, args=(source, sink, left), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket, left: int) -> None:
    try:
        while left > 0 and (data := source.recv(min(left, 65536))):
            sink.sendall(data)
            left -= len(data)
    except OSError:
        pass
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
