"""The proxy that other tests rely on: it is invisible until it is asked to spoil something."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from fedpeft.signing.tls import make_certificates

from .faulty_proxy import CUT, CUT_REPLY, GARBAGE, FaultyProxy


class Echo(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.heard.append(body)
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[tuple[FaultyProxy, ThreadingHTTPServer, httpx.Client]]:
    make_certificates(tmp_path / "tls", "proxy", [])
    certificate, key, authority = (tmp_path / "tls" / name for name in ("server.pem", "server.key", "ca.pem"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket, server.heard = context.wrap_socket(server.socket, server_side=True), []
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    with (
        FaultyProxy(certificate, key, authority, f"127.0.0.1:{server.server_address[1]}") as proxy,
        httpx.Client(verify=ssl.create_default_context(cafile=str(authority))) as client,
    ):
        client.base_url = f"https://{proxy.address}"
        yield proxy, server, client
    server.shutdown()
    server.server_close()


def test_the_proxy_passes_on_counts_and_spoils_exactly_what_it_is_asked_to(behind) -> None:
    proxy, server, client = behind
    assert client.post("/v1/fleet/pull", content=b"one").content == b"one"
    proxy.spoil("push", 503)
    assert client.post("/v1/fleet/pull", content=b"two").content == b"two"
    assert client.post("/v1/fleet/push", content=b"lost").status_code == 503
    proxy.spoil("push", GARBAGE, least=4)
    assert client.post("/v1/fleet/push", content=b"tri").content == b"tri"
    assert b"garbage" in client.post("/v1/fleet/push", content=b"four").content
    assert server.heard == [b"one", b"two", b"tri"]
    for kind, heard in ((CUT, 3), (CUT_REPLY, 4)):
        proxy.spoil("", kind)
        with pytest.raises(httpx.TransportError):
            client.post("/v1/fleet/push", content=b"five")
        assert len(server.heard) == heard
    assert proxy.spoilt
    assert proxy.counts() == {"pull": 2, "push": 5}
