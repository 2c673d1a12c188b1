"""``fedpeft registry``: versions of a federation's adapter and base, signed, for devices to fetch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedpeft.cli.options import AsJson, Runs, require_extra
from fedpeft.cli.shelf import facts, show_verdict, show_versions
from fedpeft.cli.tables import show_facts
from fedpeft.device.folders import find_run
from fedpeft.device.versions.version import STABLE, find
from fedpeft.registry.collect import collect
from fedpeft.registry.publisher import Publisher
from fedpeft.registry.shelf import PINNED, Shelf
from fedpeft.signing.keyfile import read_key

registry = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help=__doc__ + "\n\nExample: `fedpeft registry publish latest --to shelf`",
)

_Shelf = Annotated[Path, typer.Argument(help="The shelf's folder.")]
_Channel = Annotated[str, typer.Option(help="Devices follow one: small letters, digits and '-'.")]
_Key = Annotated[
    Path | None, typer.Option(help="operator.pem, which signs; by default a key that the shelf has of its own.")
]


@registry.command()
def publish(
    run: Annotated[str, typer.Argument(help="A run's name or folder, or 'latest'.")],
    to: Annotated[Path, typer.Option("--to", help="The shelf's folder; made when missing.")],
    *,
    channel: _Channel = STABLE,
    key: _Key = None,
    federation: Annotated[
        str | None, typer.Option(help="Its name, in pinned.json; the run's scenario's if none.")
    ] = None,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Export a run's global adapter, and its base if the shelf lacks it, sign them, and make them a channel's head.

    Example: `fedpeft registry publish latest --to shelf`
    """
    from fedpeft.export.settings import read_scenario
    from fedpeft.registry.publish import publish_run  # imports torch

    folder = find_run(run, runs)
    known = Shelf(to).trust.federation if (to / PINNED).exists() else None
    name = federation or known or str(read_scenario(folder).get("name", folder.name))
    publisher = Publisher(to, name, read_key(key) if key else None)
    with Console(stderr=True).status("exporting"):
        version, head = publish_run(folder, publisher, channel)
    show_facts({"version": version.id, "channel": channel, "number": head.number, "shelf": str(to)}, as_json)


@registry.command("list")
def list_(shelf: _Shelf, as_json: AsJson = False) -> None:
    """List all versions of a shelf, and which are heads.

    Example: `fedpeft registry list shelf`
    """
    found = Shelf(shelf)
    heads = {channel: found.heads(channel)[0] for channel in found.channels()}
    show_versions(found.versions(), heads, as_json)


@registry.command()
def show(
    shelf: _Shelf, version: Annotated[str, typer.Argument(help="The beginning of its id.")], as_json: AsJson = False
) -> None:
    """Show where a version comes from, how it scored, and what privacy it spent.

    Example: `fedpeft registry show shelf 3f2a`
    """
    show_facts(facts(find(version, Shelf(shelf).versions())), as_json)


@registry.command()
def rollback(
    shelf: _Shelf,
    *,
    channel: _Channel = STABLE,
    version: Annotated[
        str | None, typer.Option("--to-version", help="The beginning of an id; the one before, by default.")
    ] = None,
    key: _Key = None,
    as_json: AsJson = False,
) -> None:
    """Make an earlier version the head again, under a new and higher number: devices follow it, they never go back.

    Example: `fedpeft registry rollback shelf`
    """
    found = Shelf(shelf)
    publisher = Publisher(shelf, found.trust.federation, read_key(key) if key else None)
    head = publisher.rollback(channel, find(version, found.versions()).id if version else None)
    show_facts({"version": head.version, "channel": channel, "number": head.number}, as_json)


@registry.command()
def verify(shelf: _Shelf, as_json: AsJson = False) -> None:
    """Read all of a shelf and name what is damaged. Exits with 1 when anything is.

    Example: `fedpeft registry verify shelf`
    """
    found = Shelf(shelf)
    wrong = found.verify()
    show_verdict(f"{len(found.versions())} versions", wrong, as_json)
    raise typer.Exit(1 if wrong else 0)


@registry.command()
def gc(
    shelf: _Shelf,
    *,
    keep: Annotated[int, typer.Option(min=1, help="How many of each channel's last heads keep their versions.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Remove old versions, and files that no version has.

    Example: `fedpeft registry gc shelf --keep 5`
    """
    versions, freed = collect(Shelf(shelf), keep)
    show_facts({"versions removed": versions, "bytes freed": freed}, as_json)


@registry.command()
def serve(
    shelf: _Shelf,
    certfile: Annotated[Path, typer.Option(help="The server's certificate, in PEM.")],
    keyfile: Annotated[Path, typer.Option(help="Its key.")],
    *,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8443,
) -> None:
    """Serve a shelf to devices, by HTTPS: heads, versions and files, to be read and nothing else.

    Example: `fedpeft registry serve shelf --certfile fed/tls/server.pem --keyfile fed/tls/server.key`
    """
    require_extra("fedpeft registry serve", "serve", "starlette", "uvicorn")
    from starlette.applications import Starlette

    from fedpeft.registry.routes import routes
    from fedpeft.serve.https import listen, serve_https

    Shelf(shelf)
    sock = listen(host, port)
    typer.echo(json.dumps({"address": f"https://{host}:{sock.getsockname()[1]}"}))
    serve_https(Starlette(routes=routes(shelf)), sock, certfile, keyfile)
