"""``fedpeft compare``: one scenario, many methods."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedpeft.errors import FedpeftError

if TYPE_CHECKING:
    from fedpeft.compare import Comparison

DEFAULTS = ("simulations/compare-keyboard.toml", "simulations/compare-intents.toml")


def compare(
    scenarios: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SCENARIO]...", help="Scenario files; by default keyboard and intents."),
    ] = None,
    methods: Annotated[str | None, typer.Option(help="Names, as in lora,ia3; all by default. full is added.")] = None,
    sizes: Annotated[str, typer.Option(help="Shares of the pooled training examples.")] = "0.1,1.0",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps; by default steps × rounds of the scenario.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a field of every scenario: table.key=value.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for rows, tables and plots; finished rows in it are not run again.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Methods trained at a time; one per core.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, to publish.")] = False,
) -> None:
    """Train, save, reload and federate every method on the same base, text and steps, and lay them side by side.

    Ctrl-C keeps finished rows; the same command with the same --out goes on.

    Example: `fedpeft compare simulations/compare-keyboard.toml --methods lora,ia3,bitfit --sizes 1.0`
    """
    shares = _numbers(sizes)
    names = [name.strip() for name in methods.split(",") if name.strip()] if methods is not None else None
    if names == []:
        raise FedpeftError("--methods", methods, "names, as in lora,ia3")
    import json as json_module

    from fedpeft.cli.pieces import Pieces
    from fedpeft.compare.run import compare as run
    from fedpeft.compare.table import markdown as written
    from fedpeft.scenario import load_scenario

    loaded = [load_scenario(path, set_ or []) for path in scenarios or DEFAULTS]
    twice = {s.name for s in loaded if sum(other.name == s.name for other in loaded) > 1}
    if twice:
        raise FedpeftError("scenario name", ", ".join(sorted(twice)), "different names")
    folder = out or Path("runs") / f"compare-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    found: list[Comparison] = []
    with Pieces(quiet=json) as watcher:
        try:
            for scenario in loaded:
                watcher.begin(scenario.name)
                found.append(run(scenario, names, shares, steps, folder, watcher, workers))
                publish(found[-1], folder)
        except KeyboardInterrupt as stop:
            if watcher.last is not None:
                publish(watcher.last, folder)
            typer.echo(f"stopped; finished rows are kept: repeat the command with --out {folder}", err=True)
            raise typer.Exit(130) from stop
    if json:
        typer.echo(json_module.dumps({"comparisons": [c.model_dump(mode="json") for c in found]}, allow_nan=False))
    elif markdown:
        typer.echo("\n".join(written(c) for c in found), nl=False)
    else:
        _show(found, folder)
    if not any(row.method != "full" for c in found for row in c.rows):
        raise typer.Exit(1)


def publish(comparison: Comparison, folder: Path) -> None:
    """Write a comparison's Markdown, JSON and plots."""
    from fedpeft.compare.figure import draw
    from fedpeft.compare.table import markdown
    from fedpeft.files import write_whole

    name = comparison.name
    write_whole(folder / f"{name}.json", comparison.model_dump_json(indent=1) + "\n")
    if comparison.rows:
        draw(comparison, [folder / f"{name}.svg", folder / f"{name}.png"])
    plot = f"{name}.svg" if comparison.rows else None
    write_whole(folder / f"{name}.md", markdown(comparison, plot))


def _show(found: list[Comparison], folder: Path) -> None:
    from rich.console import Console

    from fedpeft.compare.table import terminal

    console = Console(highlight=False)
    for comparison in found:
        console.print(terminal(comparison, console.width))
    console.print(f"\n{folder}", soft_wrap=True, markup=False)


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise FedpeftError("--sizes", text, "shares of the data", "as in 0.1,1.0") from error
