"""The relay counts what passes and breaks what it is told to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.client import HTTPException, HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext

import pytest

from fedpeft.bench.loopback import found
from fedpeft.bench.relay import FAULTS, Relay
from fedpeft.federation.deployed.server_folder import ServerFolder
from fedpeft.federation.flower_link import trusting


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        if self.path == "/chunks":
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        else:
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerFolder]:
    made = found(tmp_path / "server")
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.certificate_key)
    echo = ThreadingHTTPServer(("127.0.0.1", made.settings.port), Echo)
    echo.socket = context.wrap_socket(echo.socket, server_side=True)
    threading.Thread(target=echo.serve_forever, args=(0.05,), daemon=True).start()
    yield made
    echo.shutdown()
    echo.server_close()


def test_the_relay_passes_counts_and_breaks(server: ServerFolder) -> None:
    relay = Relay(server)
    relay.start()
    port = int(relay.address.rpartition(":")[2])

    def post(body: bytes, path: str = "/") -> bytes:
        line = HTTPSConnection("127.0.0.1", port, timeout=10, context=trusting(server.ca))
        try:
            line.request("POST", path, body)
            answer = line.getresponse()
            return b"%d " % answer.status + answer.read()
        finally:
            line.close()

    try:
        assert post(b"a" * 100_000) == b"200 " + b"a" * 100_000
        assert post(b"chunked", "/chunks") == b"200 chunked"
        traffic = relay.traffic
        assert traffic.requests == 2
        assert 100_007 < traffic.up < 101_000
        assert 100_007 < traffic.down < 101_000
        relay.fault = lambda line: "refuse"
        assert post(b"x").startswith(b"500 ")
        for fault in FAULTS[1:]:
            relay.fault = lambda line, fault=fault: fault
            with pytest.raises((OSError, HTTPException)):
                post(b"x" * 10_000)
        relay.fault = lambda line: ""
        assert post(b"y") == b"200 y"
        assert (relay.traffic - traffic).requests == len(FAULTS) + 1
    finally:
        relay.stop()
