"""``fedpeft simulate``: a scenario, start to finish, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedpeft.device.folders import find_run
from fedpeft.errors import FedpeftError


def simulate(
    scenario: Annotated[
        str, typer.Argument(help="A scenario file; not needed with --resume.")
    ] = "simulations/keyboard.toml",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a field: table.key=value. Repeatable.")
    ] = None,
    engine: Annotated[
        str, typer.Option(help="inprocess: a forked worker per core; serial: one process; ray: Flower's own.")
    ] = "inprocess",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Clients trained at a time; one per core by default.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
    resume: Annotated[str | None, typer.Option(help="Go on with this run: a name, or `latest`.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object.")] = False,
) -> None:
    """Run a scenario: rounds, personalization, export, report.

    Ctrl-C leaves a run that `--resume latest` finishes with the same numbers.

    Example: `fedpeft simulate simulations/keyboard.toml --set federation.rounds=5`
    """
    if resume is not None and set_:
        raise FedpeftError("--set", ", ".join(set_), "nothing beside --resume", "a run keeps its scenario")
    from fedpeft.cli.progress import Progress
    from fedpeft.cli.report import report
    from fedpeft.federation import inprocess
    from fedpeft.scenario import load_scenario

    with Progress(quiet=json) as progress:
        try:
            if resume is not None:
                folder = inprocess.resume(find_run(resume, runs), progress, engine, workers)
            else:
                wanted = load_scenario(scenario, set_ or [])
                folder = inprocess.simulate(wanted, runs, progress, engine, workers)
        except KeyboardInterrupt as stop:
            typer.echo("stopped; every finished round is kept: fedpeft simulate --resume latest", err=True)
            raise typer.Exit(130) from stop
    report(str(folder.resolve()), runs, json)
