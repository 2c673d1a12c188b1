"""A static server for trying the page on one machine: loopback only, the right types, and a strict content policy.

Any other static server does as well; this one also isolates the page from other origins, so that the browser lets it
measure its own memory, and compresses what travels.
"""

from __future__ import annotations

import gzip
from functools import lru_cache, partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fedpeft.errors import WebError
from fedpeft.web.site import INDEX

POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; "
    "style-src 'self'; img-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


_TYPES = {".js": "text/javascript", ".wasm": "application/wasm", ".webmanifest": "application/manifest+json"}


class Server(ThreadingHTTPServer):
    """Serves a folder on loopback.

    Parameters
    ----------
    folder : Path
        As :func:`fedpeft.web.build_site` writes it.
    port : int
        0 takes a free one.

    Attributes
    ----------
    sent : int
        Bytes of bodies that went out, compressed as they were.
    requests : list of str
        Paths that were asked for.

    Raises
    ------
    WebError
        When the folder is none, or the port is taken.
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0) -> None:
        if not (folder / INDEX).is_file():
            raise WebError("folder", str(folder), f"one with {INDEX}", "make it with `fedpeft web build`")
        self.sent, self.requests = 0, list[str]()
        try:
            super().__init__(("127.0.0.1", port), partial(_Handler, directory=str(folder)))
        except OSError as error:
            raise WebError("port", port, "a free one", error.strerror or str(error)) from error

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://localhost:{self.server_port}/"


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, request: Any, client_address: Any, server: Server, *, directory: str) -> None:
        self._site = server
        super().__init__(request, client_address, server, directory=directory)

    def do_GET(self) -> None:
        """Answer with a file, compressed where the browser takes it."""
        body = self._begin()
        if body is not None:
            self._site.sent += len(body)
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        """Answer as to GET, to whom GET would, without the file."""
        self._begin()

    def _begin(self) -> bytes | None:
        """Send the head of an answer and return what belongs after it; nothing when the request was refused."""
        if self.headers.get("Host", "").rsplit(":", 1)[0] not in ("localhost", "127.0.0.1"):
            # A name somebody pointed at this machine must not read the adapters of who uses it.
            self.send_error(HTTPStatus.FORBIDDEN)
            return None
        self._site.requests.append(self.path)
        path = Path(self.translate_path(self.path))
        path = path / "index.html" if path.is_dir() else path
        if not path.is_file():
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        packed = "gzip" in self.headers.get("Accept-Encoding", "")
        body = _packed(path, path.stat().st_mtime_ns) if packed else path.read_bytes()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Content-Length", str(len(body)))
        if packed:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        return body

    def end_headers(self) -> None:
        """Add what every answer carries."""
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def guess_type(self, path: Any) -> str:
        """Return a file's type; machines disagree about some."""
        return _TYPES.get(Path(path).suffix) or super().guess_type(path)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: which files somebody loads is their affair."""


@lru_cache(maxsize=64)
def _packed(path: Path, _changed: int) -> bytes:
    return gzip.compress(path.read_bytes(), 6)
