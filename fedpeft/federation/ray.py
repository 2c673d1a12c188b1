"""The ``ray`` engine: the same apps under Flower's own simulation runtime, for machines with many cores or GPUs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from fedpeft.errors import RunError
from fedpeft.federation.flower_app import write_app
from fedpeft.federation.folder import METRICS, RUN, SCENARIO, RunFolder
from fedpeft.federation.superlink import own_superlink
from fedpeft.federation.watcher import Watcher

LOG = "flower.log"

_SERVER = ("fedpeft.federation.server", "server_app")


def conduct_on_ray(
    folder: RunFolder, nodes: int, cores: int, watcher: Watcher, app: Path | None = None, gpus: int = 0
) -> None:
    """Run the scenario of a run folder with ``flwr run`` on a SuperLink of our own.

    Parameters
    ----------
    folder : RunFolder
        Holding ``scenario.json``.
    nodes : int
        One per client.
    cores : int
        How many clients Ray may run at once.
    watcher : Watcher
    app : Path, optional
        A Flower app to run instead of the minimal one made here: a checkout of fedpeft, for ``flwr run .``.
    gpus : int
        How many the clients share.

    Raises
    ------
    RunError
        When the run did not finish; Flower's log lies in the folder.
    """
    config = {"scenario": str(folder.path.resolve() / SCENARIO), "run-folder": str(folder.path.resolve())}
    with TemporaryDirectory(prefix="fedpeft-app-") as draft, own_superlink() as superlink:
        chosen = app or write_app(Path(draft), "simulation", _SERVER, list(config))
        process = superlink.start_run(chosen, config, nodes, cores, gpus)
        with (folder.path / LOG).open("w", encoding="utf-8") as log:
            # A full pipe would stop the run, so it is emptied beside the watching.
            reader = threading.Thread(target=lambda: log.writelines(process.stdout or ()), daemon=True)
            reader.start()
            try:
                _watch(folder, process.poll, watcher)
            finally:
                process.terminate()
                process.wait()
                reader.join(5)
    status = folder.read(RUN, {}).get("status")
    if status != "trained":
        # flwr exits with 0 even when the ServerApp raised: the record is what tells.
        raise RunError(
            "Flower run", status or "not begun", "to finish", f"{_last_error(folder)}; see {folder.path / LOG}"
        )


def _watch(folder: RunFolder, ended: Callable[[], int | None], watcher: Watcher) -> None:
    """Tell the watcher of every round that appears in the record, until the process has ended."""
    rounds = folder.read(SCENARIO)["federation"]["rounds"]
    seen = 0
    while True:
        over = ended() is not None
        try:
            rows = folder.lines(METRICS)
        except json.JSONDecodeError:
            rows = []
        for row in rows[seen:]:
            watcher.round(row, rounds)
        seen = max(seen, len(rows))
        if over:
            return
        time.sleep(0.2)


def _last_error(folder: RunFolder) -> str:
    lines = (folder.path / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line.strip() for line in lines if "fedpeft.errors." in line or "Error:" in line]
    return errors[-1][-300:] if errors else (lines[-1] if lines else "Flower said nothing")
