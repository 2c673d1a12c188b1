"""``fedpeft evaluate``: what adapters are worth over a base that is held otherwise than it was trained on."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedpeft.cli.options import AsJson, Runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedpeft.compare.precisions import Line
    from fedpeft.report.tables import Grid


def evaluate(
    run: Annotated[str, typer.Argument(help="A run's name, a run folder, or 'latest'.")] = "latest",
    runs: Runs = Path("runs"),
    user: Annotated[list[str] | None, typer.Option(help="Whose text; everybody's with a personal adapter.")] = None,
    precision: Annotated[
        str, typer.Option(help="Ways to hold the base: full, float32, bfloat16, float16, int8, nf4; nf4:float32.")
    ] = "full,int8,nf4",
    graph: Annotated[
        bool, typer.Option("--graph", help="Score the exported ONNX graph too, in float32, int8 and int4.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="A file for the JSON object, with every person's losses.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score a run's global and personal adapters on people's own test text, over the base at other precisions.

    The run is only read.

    Example: fedpeft evaluate latest --user user-02 --precision bfloat16,nf4 --graph
    """
    from rich.console import Console

    from fedpeft.cli.progress import Progress
    from fedpeft.compare.precisions import GRAPHS, evaluate_run, lines
    from fedpeft.device.folders import find_run
    from fedpeft.files import write_whole
    from fedpeft.report.tables import terminal_grid

    folder = find_run(run, runs)
    held = [name.strip() for name in precision.split(",") if name.strip()] + [*GRAPHS] * graph
    with Progress(quiet=as_json) as progress:
        scores = evaluate_run(folder, held, user or (), progress.stage)
    found = lines(scores)
    said = {"run": str(folder), "lines": [asdict(line) for line in found], "people": [asdict(s) for s in scores]}
    text = json.dumps(said, allow_nan=False)
    if out is not None:
        write_whole(out, text + "\n")
    if as_json:
        typer.echo(text)
        return
    console = Console(highlight=False)
    console.print(terminal_grid(_grid(found), console.width))


def _grid(found: Sequence[Line]) -> Grid:
    from fedpeft.report.tables import Grid
    from fedpeft.report.wording import number, percent

    rows = tuple(
        (
            line.held,
            str(line.people),
            *(number(line.loss[control], 3) for control in ("base", "global", "personal")),
            percent(line.kept["global"]),
            percent(line.kept["personal"]),
        )
        for line in found
    )
    head = ("Base held as", "People", "Loss, base", "global", "personal", "Gain kept, global", "personal")
    return Grid(head, rows, strong="as trained")
