"""What devices may ask of a shelf, by HTTP: heads, versions and files, each under its plain name, and nothing else.

==================================  ====================================================================
``GET /versions/head/<channel>``    changes; asked for again each time, 304 when it is the same
``GET /versions/<sha256>``          never changes
``GET /blobs/<sha256>``             never changes; one range, with ``If-Range``
==================================  ====================================================================

A name that is no hash and no channel is not looked for, so no path leads out of the shelf. The ETag of what is named by
its hash is the hash.
"""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from fedpeft.device.versions.document import LARGEST
from fedpeft.device.versions.source import BLOBS, HEADS, VERSIONS
from fedpeft.device.versions.version import require_channel
from fedpeft.errors import ShelfError

_HASH = re.compile(r"[0-9a-f]{64}")
_FOREVER = "public, max-age=31536000, immutable"


def routes(folder: Path) -> list[Route]:
    """Return the routes of a shelf, to be served alone or mounted in a larger application.

    Parameters
    ----------
    folder : Path
        The shelf's; it is only read, and may be empty yet.
    """

    def head(request: Request) -> Response:
        try:
            name = require_channel(request.path_params["channel"])
        except ShelfError:
            return _nothing()
        return _document(request, folder / HEADS / name, "no-cache")

    def version(request: Request) -> Response:
        name = request.path_params["id"]
        return _document(request, folder / VERSIONS / name, _FOREVER) if _HASH.fullmatch(name) else _nothing()

    def blob(request: Request) -> Response:
        name = request.path_params["sha256"]
        path = folder / BLOBS / name
        if not _HASH.fullmatch(name) or not path.is_file():
            return _nothing()
        if "," in request.headers.get("range", ""):
            return PlainTextResponse("one range at a time", 416)
        headers = {"ETag": f'"{name}"', "Cache-Control": _FOREVER, "X-Content-Type-Options": "nosniff"}
        return FileResponse(path, media_type="application/octet-stream", headers=headers, stat_result=path.stat())

    return [
        Route(f"/{HEADS}/{{channel}}", head),
        Route(f"/{VERSIONS}/{{id}}", version),
        Route(f"/{BLOBS}/{{sha256}}", blob),
    ]


def _document(request: Request, path: Path, cache: str) -> Response:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST)
    except OSError:
        return _nothing()
    etag = f'"{sha256(content).hexdigest()}"'
    headers = {"ETag": etag, "Cache-Control": cache, "X-Content-Type-Options": "nosniff"}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type="application/json", headers=headers)


def _nothing() -> Response:
    return PlainTextResponse("there is no such file", 404)
