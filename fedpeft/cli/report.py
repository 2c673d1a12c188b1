"""``fedpeft report``: rebuild a run's page and print its results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[str, typer.Argument(help="A run's name, a run folder, or 'latest'.")] = "latest",
    runs: Annotated[Path, typer.Option(help="The folder that holds the runs.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown, to publish.")] = False,
) -> None:
    """Show what a run found, and write its report.html.

    Example: fedpeft report keyboard
    """
    from fedpeft.device.folders import find_run
    from fedpeft.report.figures import figures
    from fedpeft.report.folder import read_record
    from fedpeft.report.page import write_page

    folder = find_run(run, runs)
    record = read_record(folder)
    found = figures(record)
    page = write_page(folder, record, found)
    if as_json:
        typer.echo(json.dumps(found, allow_nan=False))
        return
    from rich.console import Console

    from fedpeft.report import tables

    if markdown:
        typer.echo(tables.markdown(found, record.run.status))
        return

    console = Console(highlight=False)
    console.print(tables.terminal(found, record.run.name, record.run.status, console.width))
    console.print(f"\n{page}", soft_wrap=True, markup=False)
