"""A shelf behind a server, reached by TLS 1.2 or later; with the standard library alone.

Everything a server says is checked by who reads it (signatures, hashes, sizes), so TLS is not what makes a version
right. It keeps from others which versions a device has, and strangers from wasting its bytes. Errors of the network and
answers of 429 or 5xx are worth another attempt; any other answer than was asked for is not.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

from fedpeft.device.versions.source import BLOBS, BLOCK, Stream
from fedpeft.errors import FetchError, ShelfError, ShelfGone

_SECONDS = 30.0
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


class WebSource:
    """A server.

    Parameters
    ----------
    url : str
        ``https://host[:port][/path]``, under which the layout of a shelf begins.
    ca : Path, optional
        PEM file of the only authority that is believed; the system's when not given.
    seconds : float
        How long to wait for the next bytes.

    Raises
    ------
    ShelfError
        When the URL or the authority's file is none.
    """

    def __init__(self, url: str, ca: Path | None = None, seconds: float = _SECONDS) -> None:
        self.name = url.rstrip("/")
        parts = urlsplit(self.name)
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if parts.scheme != "https" or not host or parts.username or parts.query or parts.fragment:
            raise ShelfError("address", url, "https://HOST[:PORT][/PATH], or a folder")
        try:
            context = ssl.create_default_context(cafile=str(ca) if ca else None)
        except (OSError, ssl.SSLError) as error:
            raise ShelfError(f"authority {ca}", error.strerror or str(error), "a certificate in PEM") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._path = parts.path
        self._connection = HTTPSConnection(host, port, timeout=seconds, context=context)

    def document(self, path: str, limit: int) -> bytes:
        """Get a short file."""
        with self._asked(path, {}) as response:
            length = self._require(response, path, 200)
            if length is not None and length > limit:
                raise ShelfError(f"{self.name}/{path}", f"{length} bytes", f"at most {limit}")
            with self._translated(path):
                content = response.read(limit + 1)
            if len(content) > limit:
                raise ShelfError(f"{self.name}/{path}", f"more than {limit} bytes", "a short document")
            if length is not None and len(content) != length:
                raise FetchError(f"{self.name}/{path}", f"{len(content)} bytes", f"{length}, as was announced")
            return content

    @contextmanager
    def blob(self, sha256: str, start: int, size: int) -> Iterator[Stream]:
        """Get a file, from ``start`` on when the server has the very same one."""
        path = f"{BLOBS}/{sha256}"
        # The name of a file is its hash, and so is its ETag: If-Range with it says "of that very file, or all of it".
        wanted = {"Range": f"bytes={start}-", "If-Range": f'"{sha256}"'} if start else {}
        with self._asked(path, wanted) as response:
            length = self._require(response, path, 200, *([206] if start else []))
            begin = 0 if response.status == 200 else self._begin(response, path, start, size)
            if length is not None and length != size - begin:
                raise ShelfError(f"{self.name}/{path}", f"{length} bytes", f"{size - begin}, as was signed")
            yield Stream(begin, self._blocks(response, path))

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _blocks(self, response: HTTPResponse, path: str) -> Iterator[bytes]:
        while True:
            with self._translated(path):
                block = response.read1(BLOCK)
            if not block:
                return
            yield block

    def _begin(self, response: HTTPResponse, path: str, start: int, size: int) -> int:
        found = response.headers.get("Content-Range", "")
        match = _RANGE.fullmatch(found)
        if not match or [int(n) for n in match.groups()] != [start, size - 1, size]:
            raise ShelfError(f"{self.name}/{path} range", found[:60], f"bytes {start}-{size - 1}/{size}")
        return start

    @contextmanager
    def _asked(self, path: str, headers: dict[str, str]) -> Iterator[HTTPResponse]:
        """Ask, and hang up unless all of the answer was read: what else comes on that line is of no use."""
        sent = {"Accept-Encoding": "identity", "User-Agent": "fedpeft", **headers}
        whole = False
        try:
            with self._translated(path):
                self._connection.request("GET", f"{self._path}/{path}", headers=sent)
                response = self._connection.getresponse()
            yield response
            whole = response.isclosed()
        finally:
            if not whole:
                self._connection.close()

    @contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        try:
            yield
        except ssl.SSLCertVerificationError as error:
            expected = "one for this name, signed by the authority that is believed"
            raise ShelfError(f"certificate of {self.name}", error.verify_message, expected) from error
        except (OSError, HTTPException) as error:
            said = (getattr(error, "strerror", None) or str(error) or type(error).__name__)[:120]
            raise FetchError(f"{self.name}/{path}", said, "an answer, all of it") from error

    def _require(self, response: HTTPResponse, path: str, *statuses: int) -> int | None:
        """Refuse any other answer, and return how many bytes are announced."""
        status, where = response.status, f"{self.name}/{path}"
        if status in (404, 410):
            raise ShelfGone(where, status, "a file that is there")
        if status == 429 or status >= 500:
            raise FetchError(where, f"{status} {response.reason}"[:60], "200")
        if status not in statuses:
            raise ShelfError(where, f"{status} {response.reason}"[:60], " or ".join(map(str, statuses)))
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise ShelfError(f"{where} encoding", response.headers["Content-Encoding"][:40], "the file as it is")
        return response.length
