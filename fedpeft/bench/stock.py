"""Flower's own SuperNode as a process: what an embedded node is measured against."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fedpeft.federation.superlink import end_process, environment_at
from fedpeft.files import private_folder, write_private
from fedpeft.signing.nodekey import NodeKey


class StockNode:
    """A ``flower-supernode`` with TLS and node authentication; it starts an app process for every message.

    Parameters
    ----------
    folder : Path
        Its own, for key and log.
    address : str
        Where it finds the SuperLink.
    ca : Path
    key : NodeKey
    config : mapping
        Its node configuration.
    extra : mapping, optional
        Further environment variables.
    """

    def __init__(
        self,
        folder: Path,
        address: str,
        ca: Path,
        key: NodeKey,
        config: Mapping[str, str],
        extra: Mapping[str, str] | None = None,
    ) -> None:
        self._folder, self._extra = private_folder(folder), dict(extra or {})
        own = folder / "node-key"
        write_private(own, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        self._command = ["flower-supernode", "--root-certificates", str(ca), "--superlink", address]
        self._command += ["--auth-supernode-private-key", str(own)]
        self._command += ["--node-config", " ".join(f"{name}={json.dumps(value)}" for name, value in config.items())]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process; the app's are descendants."""
        return self._process.pid if self._process else 0

    @property
    def alive(self) -> bool:
        """Whether its process is; it may have given up all the same."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """Everything it said."""
        path = self._folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Start it, or start it again."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  (a fixed program with our own arguments)
                [*self._command, "--host", "127.0.0.1", "--port", str(port)],
                env={**environment_at(self._folder), **self._extra},
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """Kill -9 of the SuperNode alone; what it started ends by itself."""
        if self._process:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def stop(self) -> None:
        """SIGTERM, and an end to all that it started."""
        if self._process:
            end_process(self._process)
            self._process = None
