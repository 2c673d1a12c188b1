"""A federation of real processes on loopback, as benchmarks and tests need it: server, keys, devices, a relay between.

Devices are forked from a process that has everything loaded, as an app has: they share its memory and start at once.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from fedpeft.federation.deployed.server_folder import ServerFolder, found_server
from fedpeft.federation.joining import join_federation
from fedpeft.federation.node import Rhythm
from fedpeft.secagg.trust.enrolling import Pinned, accept, answer, ask, read_request
from fedpeft.secagg.trust.registry import Registry

HOST = "127.0.0.1"
QUICK = Rhythm(soon=0.1, most=1.0, busy=60.0, idle=300.0, patience=2.0)
"""Asks more often than a device would: benchmarks and tests are waited for."""

_DAY = 86_400


def free_port() -> int:
    """Return a port that nobody has now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def found(folder: Path) -> ServerFolder:
    """Make a server on a free port."""
    return found_server(folder, "loopback", folder / "operator", HOST, free_port(), ["fed.example.org"])


def enrol(server: ServerFolder, client: str, identity: Path, days: float = 1.0) -> None:
    """Do what `client request`, `server enrol` and `client accept` do."""
    pinned = Pinned.read(server.pinned_file)
    identity.parent.mkdir(parents=True, exist_ok=True)
    request, certificate = identity.with_suffix(".request"), identity.with_suffix(".certificate")
    request.write_text(ask(client, identity, pinned))
    registry = Registry(server.registry)
    certified = registry.certify(read_request(request, pinned.federation), int(time.time() + days * _DAY))
    certificate.write_text(answer(client, certified))
    accept(identity, certificate, pinned, 0.0)


class Node:
    """A device in a process of its own, forked from this one, which has everything loaded.

    Parameters
    ----------
    server : ServerFolder
    scenario : Path
    folder, identity : Path
        The device's own.
    address : str
        Where it finds the server; the server's own address by default.
    prepare : callable
        Called in the device's process, before anything else.
    """

    def __init__(
        self,
        server: ServerFolder,
        scenario: Path,
        folder: Path,
        identity: Path,
        address: str = "",
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self._arguments = (folder, address or server.address, scenario, identity, server.pinned_file, server.ca)
        self._prepare, self.log_file = prepare, folder.with_suffix(".log")
        self._process: Any = None

    @property
    def pid(self) -> int:
        """Its process."""
        return int(self._process.pid)

    def start(self) -> None:
        """Start it, or start it again."""
        self._process = get_context("fork").Process(target=self.live, daemon=True)
        self._process.start()

    def kill(self) -> None:
        """Kill -9."""
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.join()

    def stop(self) -> int:
        """SIGTERM; return its exit code, now or what it was."""
        self._process.terminate()
        self._process.join(30)
        if self._process.is_alive():
            self.kill()
        return int(self._process.exitcode)

    @property
    def log(self) -> str:
        """Everything it said."""
        return self.log_file.read_text() if self.log_file.exists() else ""

    def live(self) -> None:
        """Take part in this process, until SIGTERM."""
        self._prepare()
        with self.log_file.open("a", buffering=1) as log:
            node = join_federation(*self._arguments, lambda line: print(line, file=log), QUICK)
            signal.signal(signal.SIGTERM, lambda *_: node.stop())
            node.run()
