"""An embedded node against servers that are wrong in every way; the right one is in ``tests/federation/deployed``."""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest
from flwr.clientapp import ClientApp
from flwr.proto.fleet_pb2 import ActivateNodeResponse
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatResponse

from fedpeft.errors import LinkError
from fedpeft.federation import flower_internals
from fedpeft.federation.node import EmbeddedNode, Rhythm
from fedpeft.signing.nodekey import own_node_key
from fedpeft.signing.tls import make_certificates

STAMP = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00")
QUICK = Rhythm(soon=0.01, most=0.05, busy=10.0, idle=10.0, patience=0.05)


class Wrong(BaseHTTPRequestHandler):
    """Answers as its server says: a status and a body, or by cutting the connection."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.asked.append(self.path)
        self.server.times.append(time.monotonic())
        self.server.stamps += [value for value in self.headers.values() if STAMP.fullmatch(value)]
        if self.server.answer is None:
            self.connection.close()
            return
        status, body = self.server.answer(self.path) if callable(self.server.answer) else self.server.answer
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(time.time() + self.server.ahead)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder / "right", "right", [])
    make_certificates(folder / "other", "other", [])
    return folder


@pytest.fixture
def wrong(certificates: Path) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Wrong)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "right" / "server.pem", certificates / "right" / "server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.asked, server.answer, server.stamps, server.ahead = [], (500, b""), [], 0.0
    server.times = []
    server.handle_error = lambda *_: None
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def node_for(server: ThreadingHTTPServer, root: Path, folder: Path, said: list[str]) -> EmbeddedNode:
    key = own_node_key(folder / "node.pem")
    address = f"127.0.0.1:{server.server_address[1]}"
    return EmbeddedNode(ClientApp(), address, root, key, folder / "node", {}, {}, said.append, QUICK)


def outlive(node: EmbeddedNode, said: list[str], lines: int) -> None:
    """Run a node until it has complained so often; then it must stop at once."""
    thread = threading.Thread(target=node.run)
    thread.start()
    for _ in range(600):
        if len(said) >= lines:
            break
        thread.join(0.05)
    assert thread.is_alive()
    node.stop()
    thread.join(20)
    assert not thread.is_alive()
    assert len(said) >= lines


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((500, b"database is locked"), "HTTP 500"),
        ((503, b""), "HTTP 503"),
        ((404, b"<html>"), "HTTP 404"),
        ((401, b""), "server enrol"),
        ((200, b"\xff\xff\xffgarbage"), "an answer of Flower's"),
        (None, "disconnected"),
    ],
)
def test_a_node_waits_out_whatever_a_server_answers(wrong, certificates, tmp_path, answer, expected) -> None:
    wrong.answer, said = answer, []
    outlive(node_for(wrong, certificates / "right" / "ca.pem", tmp_path, said), said, 4)
    assert all(expected in line and "again in" in line for line in said[:4])
    assert all(len(line) < 400 and "\n" not in line for line in said)
    assert {path.rpartition("/")[2] for path in wrong.asked} == {"activate-node"}


def test_a_device_whose_clock_is_an_hour_late_signs_with_the_servers_time(wrong, certificates, tmp_path) -> None:
    wrong.answer, wrong.ahead, said = (401, b""), 3600.0, []
    outlive(node_for(wrong, certificates / "right" / "ca.pem", tmp_path, said), said, 1)
    first, second = (datetime.fromisoformat(stamp).timestamp() for stamp in wrong.stamps[:2])
    assert 3590 < second - first < 3630
    assert wrong.asked[:2] == ["/v1/fleet/activate-node"] * 2


def test_a_server_of_another_authority_is_told_nothing(wrong, certificates, tmp_path) -> None:
    said: list[str] = []
    outlive(node_for(wrong, certificates / "other" / "ca.pem", tmp_path, said), said, 2)
    assert "certificate verify failed" in said[0]
    assert wrong.asked == []


def nothing_to_do(path: str) -> tuple[int, bytes]:
    """Answer as a SuperLink does that knows the node and has nothing for it."""
    answers = {
        "activate-node": ActivateNodeResponse(node_id=5),
        "send-node-heartbeat": SendNodeHeartbeatResponse(success=True),
    }
    message = answers.get(path.rpartition("/")[2])
    return 200, message.SerializeToString() if message else b""


def test_an_idle_device_asks_less_than_once_in_thirty_seconds(wrong, certificates, tmp_path) -> None:
    wrong.answer, said = nothing_to_do, []
    node = node_for(wrong, certificates / "right" / "ca.pem", tmp_path, said)
    # A hundred times as fast as by default, but for the heartbeat, which no SuperLink takes so often.
    scale, usual = 100.0, Rhythm()
    node._rhythm = Rhythm(usual.soon / scale, usual.most / scale, 10.0, 10.0, 0.05)
    thread = threading.Thread(target=node.run)
    thread.start()
    thread.join(6.0)
    node.stop()
    thread.join(20)
    assert not thread.is_alive()
    polls = [at for at, path in zip(wrong.times, wrong.asked, strict=True) if path.endswith("pull-messages")]
    beats = [path for path in wrong.asked if path.endswith("heartbeat")]
    gaps = [scale * (after - before) for before, after in pairwise(polls)]
    assert gaps[0] < 30 < usual.most * 0.99 <= min(gaps[-2:])
    assert len(beats) == 1
    # Polls as measured when nothing has happened for long, and a heartbeat at four fifths of its interval.
    assert 30 / min(gaps[-2:]) + 30 / (0.8 * usual.idle) < 0.5
    assert len(polls) < 30


def test_another_flower_is_refused_before_anything_is_asked_of_it() -> None:
    flower_internals.require_flower("1.41.7")
    with pytest.raises(LinkError, match=r"flwr: found '1.42.0', expected 1.41.x; pip install 'flwr>=1.41,<1.42'"):
        flower_internals.require_flower("1.42.0")
