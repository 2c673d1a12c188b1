"""``fedpeft simulate``: a scenario, start to finish, on this machine."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from fedpeft.errors import FedpeftError, ScenarioError


def simulate(
    scenario: Annotated[
        str, typer.Argument(help="A scenario file; not needed with --resume.")
    ] = "simulations/keyboard.toml",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a field: table.key=value. Repeatable.")
    ] = None,
    engine: Annotated[str, typer.Option(help="inprocess, or serial for one client after the other.")] = "inprocess",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one per core by default.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
    resume: Annotated[str | None, typer.Option(help="Go on with this run (a name, or `latest`).")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object.")] = False,
) -> None:
    """Run a scenario: rounds, personalization, export, report.

    Example: `fedpeft simulate simulations/keyboard.toml --set federation.rounds=5`
    """
    from fedpeft.cli.progress import Progress
    from fedpeft.federation import simulate as engines
    from fedpeft.device.folders import find_run
    from fedpeft.report import build, figures, read_record, summary
    from fedpeft.scenario import load_scenario

    if engine not in ("inprocess", "serial"):
        raise ScenarioError("--engine", engine, "inprocess or serial", "Flower's own: flwr run .")
    count = 1 if engine == "serial" else workers
    with Progress(quiet=json) as progress:
        if resume is not None:
            if set_:
                raise FedpeftError("--set", set_, "nothing with --resume", "a run keeps its scenario")
            folder = engines.resume(find_run(resume, runs), progress, count)
        else:
            folder = engines.simulate(load_scenario(scenario, set_ or []), runs, progress, count)
