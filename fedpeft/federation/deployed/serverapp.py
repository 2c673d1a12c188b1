"""The ServerApp of a deployed federation: the rounds of a simulation, with clients who may be late, wrong or away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedpeft.federation.checkpoint import Checkpoint
from fedpeft.federation.client import worker_at
from fedpeft.federation.deployed.attendance import Attendance
from fedpeft.federation.deployed.drain import Drain, UntilDrained
from fedpeft.federation.deployed.ending import told
from fedpeft.federation.deployed.handing_out import hand_out
from fedpeft.federation.deployed.link_grid import LinkGrid
from fedpeft.federation.deployed.server_folder import ServerFolder
from fedpeft.federation.folder import SCENARIO, RunFolder
from fedpeft.federation.people import sum_people
from fedpeft.federation.rounds import Rounds
from fedpeft.federation.server import attempt, federate
from fedpeft.federation.session_keys import SessionKeys
from fedpeft.federation.worker import Worker

ENGINE, FINISHED = "deployed", "finished"
# Seconds that a client has to agree on a session, where there is nothing to compute: twice an idle node's pace. Who is
# gone without a word costs no more than that when a session begins.
_SESSION = 180.0
# Longer than an idle node's pace: who is there hears of it, who is not gets the adapter with the next run.
_HANDING_OUT = 120.0
SERVER_FOLDER, RUN_FOLDER, OPERATOR_FOLDER = "server-folder", "run-folder", "operator-folder"


def deployed_app() -> ServerApp:
    """Build the ServerApp that a server's supervisor submits; it goes on where the run's folder says it stands."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        run = RunFolder(Path(str(context.run_config[RUN_FOLDER])))
        with run.lock(), told(run, context.run_id):
            server = ServerFolder(Path(str(context.run_config[SERVER_FOLDER])))
            drain = Drain(server.path)
            worker = worker_at(str(run.path / SCENARIO), str(run.path))
            with attempt(worker, run, ENGINE, FINISHED):
                operator = Path(str(context.run_config[OPERATOR_FOLDER]))
                conduct_deployed(grid, worker, run, server, operator, drain)

    return app


def conduct_deployed(
    grid: Grid, worker: Worker, run: RunFolder, server: ServerFolder, operator: Path, drain: Drain
) -> None:
    """Run what is left of a run, with whoever is there.

    Parameters
    ----------
    grid : Grid
        Flower's.
    worker : Worker
        The server's own.
    run : RunFolder
    server : ServerFolder
    operator : Path
        Folder of the operator's key.
    drain : Drain
        Heeded before the first round and after each.
    """
    most, watcher = patience(worker, server), UntilDrained(drain)
    link, door = LinkGrid(grid, most), LinkGrid(grid, min(most, _SESSION))

    def keys() -> SessionKeys | None:
        return replace(server.keys(operator), people=True) if worker.scenario.secure else None

    keys()  # before anybody is waited for: a key that is missing is said at once
    attendance = Attendance(door, worker, server.registry, keys, run, watcher)
    point = Checkpoint.read(run.path, worker.scenario.digest, worker.size)
    end, roll = attendance.begin(point.round if point else 0, attendance.gather(server.settings.gathering, drain.heed))
    rounds = Rounds(link, worker, roll, end, run, watcher, renewed=attendance.renewed)
    change = federate(rounds, sum_people)
    if worker.scenario.enrolled:
        hand_out(LinkGrid(grid, min(_HANDING_OUT, most)), rounds, change)


def patience(worker: Worker, server: ServerFolder) -> float:
    """Return the seconds that a client has: what the scenario says, the server's own settings at most."""
    most = server.settings.deadline
    return min(most, worker.scenario.federation.deadline or most)
