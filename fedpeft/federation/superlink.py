"""A SuperLink of our own on loopback, for as long as a ``with`` block lasts; nothing of it survives."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

import psutil

from fedpeft.errors import RunError

_NAME = "own"
_PATIENCE = 60.0
_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "NO_COLOR": "1",
}


@dataclass(frozen=True)
class SuperLink:
    """Where the SuperLink's commands run.

    Parameters
    ----------
    home : Path
        ``FLWR_HOME`` and working directory: empty of code, because Ray's actors import from it first.
    environment : dict
        For ``flwr`` commands.
    """

    home: Path
    environment: dict[str, str]

    def start_run(
        self, app: Path, config: dict[str, str], nodes: int, cores: int, gpus: int = 0
    ) -> subprocess.Popen[str]:
        """Start ``flwr run`` of an app with so many clients, on so many cores and GPUs; its output is the app's log."""
        file = self.home / "run.toml"
        file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in config.items()))
        # Ray shows a client no more of the GPUs than it is said to need; as many share one as there are cores for it.
        share = min(1.0, gpus / cores)
        federation = (
            f"num-supernodes={nodes} client-resources-num-cpus=1 client-resources-num-gpus={share} "
            f"init-args-num-cpus={cores}"
        )
        command = ["flwr", "run", str(app), _NAME, "--stream"]
        command += ["--run-config", str(file), "--federation-config", federation]
        return subprocess.Popen(  # noqa: S603  (a fixed program with our own arguments)
            command,
            env=self.environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def environment_at(home: Path) -> dict[str, str]:
    """Return the environment of Flower's programs: nothing of theirs calls home, and ours are found first."""
    programs = str(Path(sys.executable).parent)
    path = programs + os.pathsep + os.environ.get("PATH", "")
    return {**os.environ, **_QUIET, "FLWR_HOME": str(home), "PATH": path}


@contextmanager
def own_superlink() -> Iterator[SuperLink]:
    """Start a SuperLink for Flower's simulation runtime on a free loopback port.

    Raises
    ------
    RunError
        When it does not come up.
    """
    with TemporaryDirectory(prefix="fedpeft-flower-", ignore_cleanup_errors=True) as folder, socket.socket() as probe:
        home = Path(folder)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "{_NAME}"\n\n[superlink.{_NAME}]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
        )
        environment = environment_at(home)
        with (home / "superlink.log").open("wb") as log:
            command = ["flower-superlink", "--insecure", "--simulation", "--isolation", "subprocess"]
            command += ["--disable-runtime-dependency-installation", "--host", "127.0.0.1", "--port", str(port)]
            process = subprocess.Popen(  # noqa: S603
                command, env=environment, cwd=home, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            try:
                _wait_until_healthy(process, port, home)
                yield SuperLink(home, environment)
            finally:
                end_process(process)


def _wait_until_healthy(process: subprocess.Popen[bytes], port: int, home: Path) -> None:
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                tail = (home / "superlink.log").read_text(errors="replace").strip().splitlines()[-1:]
                raise RunError("SuperLink", " ".join(tail), "to answer on loopback") from None
            time.sleep(0.1)


def end_process(process: subprocess.Popen[bytes], patience: float = 10) -> None:
    """Ask a program to stop, then make sure that none of its descendants is left."""
    descendants = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(descendants, timeout=5)
    for child in alive:
        child.kill()
