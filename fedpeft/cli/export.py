"""``fedpeft export``: write a run's base and adapters for devices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedpeft.device.folders import LATEST, NOBODY, find_run


def export(
    run: Annotated[str, typer.Option(help="A run's name or folder, or 'latest'.")] = LATEST,
    runs: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Export a run's base as one ONNX graph, and every person's adapter as a file that swaps over it.

    Example: fedpeft export --run latest
    """
    from fedpeft.export import export_run  # imports torch

    folder = find_run(run, runs)
    exported = export_run(folder)
    sizes = {owner: sum(file.bytes for file in m.files.values()) for owner, m in exported.items()}
    if as_json:
        typer.echo(json.dumps({"run": str(folder), "device": str(folder / "device"), "bytes": sizes}))
        return
    base = sizes.pop(NOBODY)
    adapters = f"{len(sizes)} adapters, {sum(sizes.values()) / 1e6:.1f} MB"
    Console().print(f"{folder / 'device'}: the base, {base / 1e6:.1f} MB, and {adapters}", highlight=False)
