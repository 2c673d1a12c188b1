"""``fedpeft bench``: measure one published figure here, against a named rival in the same run."""

from __future__ import annotations

import json as json_module
from importlib import import_module
from typing import Annotated

import typer

from fedpeft.errors import FedpeftError, nearest


def bench(
    name: Annotated[str, typer.Argument(help="A name; a wrong one lists them all.")],
    full: Annotated[bool, typer.Option("--full", help="The published table instead of the quick one.")] = False,
    device: Annotated[str | None, typer.Option(help="gpu only: cuda by default; cpu tries a tiny model.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object as the last line.")] = False,
) -> None:
    """Run a benchmark. Machines are noisy: trust ratios, not seconds.

    Example: `fedpeft bench roundtrip --json`
    """
    from rich.console import Console
    from rich.table import Table

    from fedpeft.bench import BENCHES
    from fedpeft.federation.folder import environment

    if name not in BENCHES:
        raise FedpeftError("bench", name, "a known benchmark", nearest(name, BENCHES))
    if device is not None and name != "gpu":
        raise FedpeftError("bench", f"--device {device}", "none", "only the benchmark gpu takes a device")
    options = {} if device is None else {"device": device}
    console = Console(stderr=True)
    with console.status(BENCHES[name]):
        result = import_module(f"fedpeft.bench.{name.replace('-', '_')}").run(full, **options)
    if json:
        machine = environment()
        typer.echo(
            json_module.dumps({"bench": name, "figures": result.figures, "rival": result.rival, "machine": machine})
        )
        return
    table = Table(title=f"{name}: {BENCHES[name]}", title_justify="left")
    table.add_column("figure")
    table.add_column("fedpeft", justify="right")
    table.add_column(str(result.rival.get("name", "")), justify="right")
    for key in [*result.figures, *(k for k in result.rival if k != "name" and k not in result.figures)]:
        table.add_row(key, _shown(result.figures.get(key)), _shown(result.rival.get(key)))
    Console().print(table)


def _shown(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
