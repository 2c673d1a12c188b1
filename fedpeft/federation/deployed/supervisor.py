"""Keeps a server alive: the SuperLink, the program that starts its ServerApps, the nodes it admits, and the run.

The run is submitted whenever it is neither finished nor held by a living ServerApp; a ServerApp that begins goes on at
the last finished round of the run's folder. What has died is known by the lock on that folder, at once, not by a
heartbeat's silence.
"""

from __future__ import annotations

import fcntl
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from fedpeft.errors import FedpeftError, LinkError, RunError
from fedpeft.federation.deployed.admission import admit, registry_changed
from fedpeft.federation.deployed.programs import Program, end_leftovers, remember
from fedpeft.federation.deployed.server_folder import ServerFolder
from fedpeft.federation.deployed.serverapp import FINISHED, OPERATOR_FOLDER, RUN_FOLDER, SERVER_FOLDER
from fedpeft.federation.flower_app import write_app
from fedpeft.federation.flower_control import ControlLine
from fedpeft.federation.flower_link import trusting
from fedpeft.federation.folder import RUN, SCENARIO, RunFolder
from fedpeft.federation.node.backoff import Backoff
from fedpeft.federation.people import require_summable
from fedpeft.federation.superlink import environment_at
from fedpeft.files import write_whole
from fedpeft.scenario import Scenario, load_scenario

_NAME = "own"
_APP = ("fedpeft.federation.deployed.serverapp", "deployed_app")
_RUN_ID = "run-id"
_PULSE, _ADMISSION = 0.5, 60.0
# From submission to a ServerApp that holds the run's folder: Flower's polls, Python, torch and the base. Twice as long
# after each time that it was not enough: a machine that is too busy to start one must not be made to start others.
_STARTING, _LONGEST = 180.0, 3600.0


class Supervisor:
    """Runs one scenario on one server.

    Parameters
    ----------
    server : ServerFolder
    scenario : Scenario
    operator : Path
        Folder of the operator's key.
    hear : callable
        Told, in one line each, what happens.

    Raises
    ------
    FedpeftError
        When the folder's run belongs to another scenario, or a key is missing.
    """

    def __init__(
        self, server: ServerFolder, scenario: Scenario, operator: Path, hear: Callable[[str], None] = lambda line: None
    ) -> None:
        if scenario.seeds:
            raise RunError("seeds", scenario.seeds, "one seed", "a deployed run has one: use `seed`")
        require_summable(scenario)
        self._server, self._hear = server, hear
        self._operator = operator.resolve()
        if scenario.secure:
            server.keys(self._operator)
        self.run_folder = self._describe(scenario)
        self._stopping = threading.Event()
        self._superlink = Program("superlink", self._superlink_command(), server.flower)
        self._superexec = Program("superexec", self._superexec_command(), server.flower)
        self._trust = trusting(server.ca)
        # When the run was submitted, until a ServerApp holds its folder; None when one does or did.
        self._submitted: float | None = None
        self._held, self._starting = False, _STARTING
        self._not_before, self._backoff = 0.0, Backoff(2.0, 120.0)
        self._rounds = 0
        self._changed, self._admission = -1, 0.0

    def stop(self) -> None:
        """End; may be called from a signal handler or another thread. The run can be resumed."""
        self._stopping.set()

    def run(self) -> bool:
        """Keep everything alive until the run is finished, or :meth:`stop`.

        Returns
        -------
        bool
            Whether the run is finished.

        Raises
        ------
        RunError
            When another process supervises this folder.
        """
        programs = (self._superlink, self._superexec)
        with self._lock():
            for name in end_leftovers(self._server.flower):
                self._hear(f"{name} was left behind; it was ended")
            self._configure()
            control = ControlLine(self._server.address, self._server.ca)
            try:
                while not self._stopping.is_set():
                    self._keep(programs)
                    if self._finished():
                        self._hear(f"run {self.run_folder.path.name} is finished: {self.run_folder.path}")
                        return True
                    if self._healthy():
                        self._admit(control)
                        self._drive(control)
                    self._stopping.wait(_PULSE)
            finally:
                control.close()
                # Executors first: a ServerApp that is asked to stop tells the SuperLink so.
                for program in reversed(programs):
                    program.stop()
                remember(self._server.flower, programs)
        return False

    def _keep(self, programs: tuple[Program, ...]) -> None:
        before = [program.process for program in programs]
        for program in programs:
            # An executor that finds no SuperLink only waits for it.
            said = program.keep()
            if said:
                self._hear(said)
        if [program.process for program in programs] != before:
            remember(self._server.flower, programs)

    def _finished(self) -> bool:
        return self.run_folder.read(RUN, {}).get("status") == FINISHED and not self.run_folder.in_use()

    def _admit(self, control: ControlLine) -> None:
        """Tell the SuperLink of the registry when that has changed, and now and then: certificates expire."""
        changed = registry_changed(self._server.registry)
        if changed == self._changed and time.monotonic() < self._admission:
            return
        try:
            for line in admit(control, self._server.registry):
                self._hear(line)
            self._changed, self._admission = changed, time.monotonic() + _ADMISSION
        except FedpeftError as error:
            self._hear(str(error))

    def _drive(self, control: ControlLine) -> None:
        """Submit the run when nobody works on it."""
        now = time.monotonic()
        if self.run_folder.in_use():
            self._progress()
            self._held, self._submitted, self._starting = True, None, _STARTING
            return
        if self._held:
            self._held, self._not_before = False, now + self._backoff.next()
            self._hear(f"the ServerApp is gone ({self._reason()}); the run is resumed")
        starting = self._submitted is not None and now - self._submitted < self._starting
        if starting or now < self._not_before:
            return
        if self._submitted is not None:
            self._hear(f"no ServerApp in {self._starting:.0f} s; the run is submitted again")
            self._starting, self._submitted = min(_LONGEST, 2 * self._starting), None
        try:
            self._forsake(control)
            self._submit()
            self._submitted = time.monotonic()
        except (RunError, LinkError) as error:
            self._not_before = time.monotonic() + self._backoff.next()
            self._hear(str(error))

    def _forsake(self, control: ControlLine) -> None:
        """End the SuperLink's run of the ServerApp that is gone: it would keep nodes busy until it is missed."""
        last = self._server.flower / _RUN_ID
        if last.exists():
            text = last.read_text(encoding="ascii", errors="replace")
            if text.isascii() and text.isdigit():
                control.stop_run(int(text))
            last.unlink()

    def _progress(self) -> None:
        rows = self.run_folder.lines("metrics.jsonl")
        if len(rows) > self._rounds:
            self._rounds = len(rows)
            self._backoff.reset()
            last = rows[-1]
            burnt = f", burnt: {last.get('reason')}" if last.get("burnt") else ""
            self._hear(f"round {last['round']} is finished with {last.get('contributors', 0)} clients{burnt}")

    def _reason(self) -> str:
        """Return the last error in the executor's log: that is where a ServerApp's words go."""
        lines = self._superexec.log.read_text(encoding="utf-8", errors="replace").splitlines()[-200:]
        errors = [line.strip() for line in lines if "fedpeft.errors." in line or "Error:" in line]
        return errors[-1][-240:] if errors else "it was killed"

    def _submit(self) -> None:
        config = {
            SERVER_FOLDER: str(self._server.path),
            RUN_FOLDER: str(self.run_folder.path),
            OPERATOR_FOLDER: str(self._operator),
        }
        home = self._server.flower
        file = home / "run.toml"
        file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in config.items()))
        app = write_app(home / "app", "deployed", _APP, list(config))
        command = ["flwr", "run", str(app), _NAME, "--run-config", str(file), "--format", "json"]
        try:
            done = subprocess.run(  # noqa: S603
                command, env=environment_at(home), cwd=home, capture_output=True, text=True, timeout=120, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise RunError("flwr run", "no answer in 120 s", "a run that is accepted") from error
        if done.returncode:
            said = " ".join((done.stdout + done.stderr).split())[-240:]
            raise RunError("flwr run", said, "a run that is accepted")
        try:
            run = int(json.loads(done.stdout[done.stdout.index("{") :])["run-id"])
        except (ValueError, KeyError, TypeError) as error:
            raise RunError("flwr run", done.stdout[-200:], "JSON with a run-id") from error
        write_whole(home / _RUN_ID, str(run))
        self._hear(f"the run is submitted as {run}: {self.run_folder.path}")

    def _healthy(self) -> bool:
        try:
            with urlopen(f"https://{self._server.address}/health", timeout=5, context=self._trust):
                return True
        except HTTPError:
            return True
        except (OSError, LinkError):
            return False

    def _describe(self, scenario: Scenario) -> RunFolder:
        path = self._server.run(scenario.name)
        if (path / SCENARIO).exists():
            found = load_scenario(path / SCENARIO)
            if found.digest != scenario.digest:
                raise RunError(f"run {path}", "another scenario", "the one it began with", "give this one another name")
            return RunFolder(path)
        folder = RunFolder(path)
        folder.write(SCENARIO, scenario.model_dump(mode="json"))
        return folder

    def _configure(self) -> None:
        connection = {"address": self._server.address, "root-certificates": str(self._server.ca)}
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in connection.items())
        text = f'[superlink]\ndefault = "{_NAME}"\n\n[superlink.{_NAME}]\n{lines}'
        (self._server.flower / "config.toml").write_text(text)

    def _superlink_command(self) -> list[str]:
        server, settings = self._server, self._server.settings
        if not server.secret.is_file():
            raise RunError(f"secret {server.secret}", "missing", "what `fedpeft server init` made")
        return [
            *("flower-superlink", "--isolation", "process", "--enable-supernode-auth"),
            *("--disable-runtime-dependency-installation", "--database", str(server.flower / "superlink.sqlite")),
            *("--ssl-ca-certfile", str(server.ca), "--ssl-certfile", str(server.certificate)),
            *("--ssl-keyfile", str(server.certificate_key), "--superexec-auth-secret-file", str(server.secret)),
            *("--host", settings.listen, "--port", str(settings.port)),
        ]

    def _superexec_command(self) -> list[str]:
        server = self._server
        return [
            *("flower-superexec", "--runtime-api-address", server.address, "--root-certificates", str(server.ca)),
            *("--superexec-auth-secret-file", str(server.secret)),
        ]

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with (self._server.flower / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RunError(f"server {self._server.path}", "in use", "one that no other process runs") from error
            yield
