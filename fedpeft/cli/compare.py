"""``fedpeft compare``: one scenario, many methods."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedpeft.cli.options import AsJson
from fedpeft.errors import FedpeftError

if TYPE_CHECKING:
    from fedpeft.compare import Comparison
    from fedpeft.scenario import Scenario

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
    rates: Annotated[
        str | None, typer.Option(help="Multiples of each method's rate, as in 0.3,1,3: score these on validation text.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Methods trained at a time; one per core.")] = None,
    json: AsJson = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, to publish.")] = False,
) -> None:
    """Train, save, reload and federate every method on the same base, text and steps, and lay them side by side.

    Ctrl-C keeps finished rows; the same command with the same --out goes on.

    Example: `fedpeft compare simulations/compare-keyboard.toml --methods lora,ia3,bitfit --sizes 1.0`
    """
    shares = _numbers(sizes, "--sizes", "shares of the data", "as in 0.1,1.0")
    factors = None if rates is None else _numbers(rates, "--rates", "positive factors", "as in 0.3,1,3")
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
    if factors is not None:
        _sweep(loaded, names, factors, steps, workers, json)
        return
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


def _sweep(
    loaded: list[Scenario],
    names: list[str] | None,
    factors: list[float],
    steps: int | None,
    workers: int | None,
    json: bool,
) -> None:
    import json as json_module

    from rich.console import Console
    from rich.table import Table

    from fedpeft.cli.pieces import Pieces
    from fedpeft.compare.sweep import sweep

    found = {}
    with Pieces(quiet=json) as watcher:
        for scenario in loaded:
            watcher.begin(scenario.name)
            found[scenario.name] = sweep(scenario, names, factors, steps, watcher.piece, workers)
    if json:
        typer.echo(json_module.dumps({"validation_loss": found}))
        return
    for name, methods in found.items():
        table = Table(title=f"{name}: validation loss by learning rate", title_justify="left")
        for column in ("method", *(f"× {factor:g}" for factor in factors)):
            table.add_column(column)
        for method, losses in methods.items():
            best = min((loss for loss in losses.values() if loss is not None), default=None)
            cells = [f"{rate:g}: {'–' if loss is None else f'{loss:.4f}'}" for rate, loss in sorted(losses.items())]
            marks = [f"[bold]{cell}[/]" if best is not None and f"{best:.4f}" in cell else cell for cell in cells]
            table.add_row(method, *marks)
        Console(highlight=False).print(table)


def _numbers(text: str, option: str, expected: str, remedy: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise FedpeftError(option, text, expected, remedy) from error
    if not all(0.0 < number < 1e6 for number in found) or len(set(found)) != len(found):
        raise FedpeftError(option, text, f"different {expected} above 0", remedy)
    return sorted(found)
