"""A run at the SuperLink: submitted whenever nobody works on it, and ended there when its ServerApp is gone."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from fedpeft.errors import RunError
from fedpeft.federation.deployed.programs import marked
from fedpeft.federation.deployed.server_folder import ServerFolder
from fedpeft.federation.flower_app import write_app
from fedpeft.federation.flower_control import ControlLine
from fedpeft.files import write_whole

_NAME = "own"
_APP = ("fedpeft.federation.deployed.serverapp", "deployed_app")
_RUN_ID = "run-id"
_KEPT = 20


class Submission:
    """One run, submitted again and again until it is finished.

    Parameters
    ----------
    server : ServerFolder
    config : mapping
        The ServerApp's run configuration.

    Attributes
    ----------
    number : int or None
        Flower's, of the last submission.
    starts : list of float
        When it was submitted lately; unix seconds.
    """

    def __init__(self, server: ServerFolder, config: Mapping[str, str]) -> None:
        self._server, self._config = server, dict(config)
        self._file = server.flower / _RUN_ID
        self.number: int | None = None
        self.starts: list[float] = []

    def forsake(self, control: ControlLine) -> None:
        """End the SuperLink's run of the ServerApp that is gone: it would keep nodes busy until it is missed."""
        if self._file.exists():
            text = self._file.read_text(encoding="ascii", errors="replace")
            if text.isascii() and text.isdigit():
                control.stop_run(int(text))
            self._file.unlink()

    def submit(self) -> int:
        """Submit it, and return Flower's number.

        Raises
        ------
        RunError
            When Flower does not take it.
        """
        home = self._server.flower
        self._connect()
        file = home / "run.toml"
        file.write_text(_lines(self._config))
        app = write_app(home / "app", "deployed", _APP, list(self._config))
        self.number = _flwr_run(home, app, file)
        self.starts = [*self.starts, time.time()][-_KEPT:]
        write_whole(self._file, str(self.number))
        return self.number

    def _connect(self) -> None:
        """Write where ``flwr run`` finds the SuperLink."""
        connection = {"address": self._server.address, "root-certificates": str(self._server.ca)}
        text = f'[superlink]\ndefault = "{_NAME}"\n\n[superlink.{_NAME}]\n{_lines(connection)}'
        (self._server.flower / "config.toml").write_text(text)


def _flwr_run(home: Path, app: Path, config: Path) -> int:
    command = ["flwr", "run", str(app), _NAME, "--run-config", str(config), "--format", "json"]
    try:
        done = subprocess.run(  # noqa: S603
            command, env=marked(home), cwd=home, capture_output=True, text=True, timeout=120, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise RunError("flwr run", "no answer in 120 s", "a run that is accepted") from error
    if done.returncode:
        said = " ".join((done.stdout + done.stderr).split())[-240:]
        raise RunError("flwr run", said, "a run that is accepted")
    try:
        return int(json.loads(done.stdout[done.stdout.index("{") :])["run-id"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunError("flwr run", done.stdout[-200:], "JSON with a run-id") from error


def _lines(values: Mapping[str, str]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
