"""A registry, a server's certificates and a gate on a real TLS socket."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import pytest

from fedpeft.files import write_whole
from fedpeft.gate.app import Gate
from fedpeft.gate.notice import Notice, authority_of
from fedpeft.gate.tokens import Tokens
from fedpeft.secagg.trust.registry import REGISTRY, Registry, found_federation
from fedpeft.serve.https import Server, listen, settings
from fedpeft.signing.tls import make_certificates

SCENARIO = 'name = "chat"\n[data]\nfederation = "enrolled"\n'


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@dataclass
class Place:
    """A federation's folder."""

    folder: Path
    tokens: Tokens
    clock: Clock
    address: str = "127.0.0.1:1"

    @property
    def registry(self) -> Registry:
        return Registry(self.folder / REGISTRY)

    @property
    def notice(self) -> Notice:
        return Notice.of(self.folder, self.folder / "chat.toml")

    def token(self, client: str = "ada", hours: float = 1.0) -> str:
        return str(self.tokens.issue(client, self.address, authority_of(self.folder / "tls" / "ca.pem"), hours))


def make_place(folder: Path) -> Place:
    """Do what `fedpeft server init` does, without importing what runs rounds."""
    pinned = found_federation(folder, "chat", folder / "operator")
    make_certificates(folder / "tls", "chat", [])
    write_whole(folder / "pinned.json", pinned.to_json())
    write_whole(folder / "server.toml", 'listen = "127.0.0.1"\nport = 8000\n')
    (folder / "chat.toml").write_text(SCENARIO)
    clock = Clock()
    return Place(folder, Tokens(Registry(folder / REGISTRY), clock), clock)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return make_place(tmp_path / "fed")


@pytest.fixture
def gate(place: Place) -> Iterator[Place]:
    """Return the place with its gate open."""
    with opened(Gate(place.notice, place.tokens, per_minute=100_000), place.folder) as port:
        place.address = f"127.0.0.1:{port}"
        yield place


class opened:  # noqa: N801
    """A gate in a thread, with the certificate of a folder."""

    def __init__(self, gate: Gate, folder: Path, routes=()) -> None:
        self._sock = listen("127.0.0.1", 0)
        tls = folder / "tls"
        self._server = Server(settings(gate.app(routes), 64, 0.0, tls / "server.pem", tls / "server.key"), lambda: None)
        self._thread = Thread(target=self._server.run, kwargs={"sockets": [self._sock]}, daemon=True)

    def __enter__(self) -> int:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        return int(self._sock.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
