"""``fedpeft base``: which bases there are, what they cost, and getting them ready before they are needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fedpeft.cli.options import AsJson

if TYPE_CHECKING:
    from fedpeft.base.describe import Description

base = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown", help=__doc__)


@base.command("list")
def show_all(as_json: AsJson = False) -> None:
    """List the bases with a name of their own, and what makes those usable that are not.

    Example: fedpeft base list
    """
    from fedpeft.base import builtin_names  # imports torch
    from fedpeft.base.packages import PACKAGES

    rows: list[dict[str, Any]] = [
        {"name": name, "comes": "with fedpeft", "licence": "Apache-2.0", "ready": True, "next": ""}
        for name in builtin_names()
    ]
    for name, package in PACKAGES.items():
        missing = package.missing()
        row = {"name": name, "comes": package.requirement, "licence": package.licence}
        rows.append({**row, "ready": not missing, "next": missing or package.pending(name)})
    if as_json:
        typer.echo(json.dumps({"bases": rows}))
        return
    table = Table("Base", "Comes", "Licence", "Next", box=None, pad_edge=False)
    for row in rows:
        table.add_row(row["name"], row["comes"], row["licence"], row["next"] or "ready")
    Console().print(table)
    Console().print("\nAny local Hugging Face folder is a base too and, where there is a hub, any hub id.")


@base.command()
def prepare(
    name: Annotated[str, typer.Argument(help="A known name, a folder, or a hub id.")],
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16 or float16: what processes will compute in.")
    ] = "bfloat16",
) -> None:
    """Fetch and convert a base once, so that no run has to.

    Example: fedpeft base prepare smollm2-135m
    """
    from fedpeft.base.load import prepare_base

    with Console(stderr=True).status(f"preparing {name}"):
        folder = prepare_base(name, dtype)
    Console(highlight=False).print(f"{name} is ready in {dtype}: {folder}")


@base.command()
def show(
    name: Annotated[str, typer.Argument(help="A known name, a folder, or a hub id.")], as_json: AsJson = False
) -> None:
    """Say what a base is: parameters, memory by precision, licence, fingerprint.

    Example: fedpeft base show keyboard
    """
    from fedpeft.base.describe import describe

    with Console(stderr=True).status(f"reading {name}"):
        found = describe(name, Path.cwd())
    if as_json:
        typer.echo(json.dumps({**vars(found), "folder": str(found.folder)}))
        return
    Console(highlight=False).print(_table(found))


@base.command()
def shrink(
    name: Annotated[str, typer.Argument(help="A known name, a folder, or a hub id: a language model.")],
    layers: Annotated[int, typer.Option(help="How many layers stay: the first and the last.")],
    out: Annotated[Path, typer.Option(help="A new folder.")],
) -> None:
    """Write a smaller base of the same vocabulary, for devices that a larger one can teach.

    Example: fedpeft base shrink smollm2-135m --layers 15 --out smollm2-15
    """
    from fedpeft.base.describe import describe
    from fedpeft.base.shrink import shrink as write

    with Console(stderr=True).status(f"reading {name}"):
        licence = describe(name, Path.cwd()).licence
        fingerprint = write(name, layers, out, licence, Path.cwd())
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{out}: {describe(str(out.resolve())).parameters:,} parameters, fingerprint {fingerprint[:16]}")


def _table(found: Description) -> Table:
    uses = "text" if found.kind == "causal" else "an encoder, for classification"
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("base", found.name)
    table.add_row("kind", f"{uses}{', with a chat template' if found.chat else ''}")
    table.add_row("architecture", found.architecture)
    table.add_row("parameters", f"{found.parameters:,}, of them {found.linear:,} in linear layers")
    sizes = ", ".join(f"{precision} {size / 1e6:,.1f} MB" for precision, size in found.memory.items())
    table.add_row("weights", sizes)
    table.add_row("licence", found.licence)
    table.add_row("fingerprint", found.fingerprint)
    table.add_row("folder", str(found.folder))
    return table
