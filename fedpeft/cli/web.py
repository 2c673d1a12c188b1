"""``fedpeft web``: the browser client as a folder, and a server to try it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedpeft.cli.options import AsJson, Runs
from fedpeft.device.folders import EVERYBODY, find_run, users

web = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="The browser client: build it, try it.",
)


@web.command()
def build(
    run: Annotated[str, typer.Argument(help="A run's name or folder, or 'latest'.")],
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    *,
    user: Annotated[
        list[str] | None,
        typer.Option(help="Whose adapter to put in, again for each; the shared one when not given."),
    ] = None,
    runs: Runs = Path("runs"),
    page: Annotated[Path | None, typer.Option(help="The page, built or its sources, when not in a checkout.")] = None,
    weights: Annotated[str, typer.Option(help="How the base travels: int8, dynamic-int8 or float32.")] = "int8",
    as_json: AsJson = False,
) -> None:
    """Write a folder that any static server can serve: the page, the base, and the adapters of those you name.

    Whoever can reach the folder can read the adapters in it. People can also open theirs from their own disk.

    Example: fedpeft web build latest site --user user-00 --user user-02
    """
    from fedpeft.web import build_site, built_page  # imports torch
    from fedpeft.web.page import SOURCES

    folder = find_run(run, runs)
    people = list(dict.fromkeys(user or [name for name in users(folder) if name == EVERYBODY]))
    console = Console(stderr=True)
    with console.status("building the page"):
        built = built_page(page or SOURCES)
    with console.status("exporting the base"):
        site = build_site(folder, out, people, built, weights)
    if as_json:
        typer.echo(json.dumps({"folder": str(out), "people": people, "bytes": site.sizes}))
        return
    sizes = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in site.sizes.items())
    Console().print(f"{out}: {sizes}. Try it: fedpeft web serve {out}", highlight=False)


@web.command()
def serve(
    folder: Annotated[Path, typer.Argument(help="What `fedpeft web build` wrote.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="On loopback; 0 takes a free one.")] = 8420,
) -> None:
    """Serve a built folder on this machine alone, until Ctrl-C.

    Example: fedpeft web serve site
    """
    from fedpeft.web.server import Server

    with Server(folder, port) as server:
        Console().print(f"{server.address} (Ctrl-C stops)", highlight=False)
        server.serve_forever()
