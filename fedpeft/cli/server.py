"""``fedpeft server``: the registry of a federation. Running a server itself is still to come."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fedpeft.cli.options import AsJson
from fedpeft.files import write_whole

server = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown", help=__doc__)

_DAY = 86_400
_Registry = Annotated[Path, typer.Option("--registry", help="The registry's folder.")]


@server.command()
def init(
    folder: Annotated[Path, typer.Argument(help="For the registry, and what clients' apps pin.")],
    federation: Annotated[str, typer.Option(help="Its name, which certificates carry.")],
    operator: Annotated[
        Path | None, typer.Option(help="Folder for the operator's key, on another machine say.")
    ] = None,
) -> None:
    """Make a federation's keys: its registry authority's and its operator's.

    Example: fedpeft server init keys --federation keyboard --operator /media/stick
    """
    from fedpeft.secagg.trust.registry import OPERATOR, REGISTRY, found_federation

    held = operator or folder / "operator"
    pinned = found_federation(folder, federation, held)
    write_whole(folder / "pinned.json", pinned.to_json())
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{folder / REGISTRY}: the authority's key, which certifies clients; keep it off the aggregator")
    console.print(f"{held / OPERATOR}: the operator's key, which signs runs; keep it off the aggregator too")
    console.print(f"{folder / 'pinned.json'}: what every client's app pins; not secret")


@server.command()
def enrol(
    request: Annotated[Path, typer.Argument(help="What `fedpeft client request` wrote.")],
    registry: _Registry,
    out: Annotated[Path, typer.Option(help="The certificate, for the client.")],
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long it holds.")] = 365,
) -> None:
    """Certify a client that has shown that it holds its key. Whether it is who it says is for you to know.

    Example: fedpeft server enrol ada.request.json --registry keys/registry --out ada.certificate.json
    """
    from fedpeft.secagg.trust.enrolling import answer, read_request
    from fedpeft.secagg.trust.registry import Registry

    held = Registry(registry)
    asked = read_request(request, held.authority.federation)
    certificate = held.certify(asked, int(time.time()) + days * _DAY)
    write_whole(out, answer(asked.client, certificate))
    Console(highlight=False, soft_wrap=True).print(
        f"{asked.client} is certified until {_day(certificate.expiry)}: {out}"
    )


@server.command()
def revoke(client: Annotated[str, typer.Argument(help="Whose keys.")], registry: _Registry) -> None:
    """Revoke a client's keys; a new one can be certified.

    Example: fedpeft server revoke ada --registry keys/registry
    """
    from fedpeft.secagg.trust.registry import Registry

    listed = Registry(registry).revoke(client)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{client} is revoked, list {listed.version}: {registry / 'revocations.json'}")


@server.command()
def clients(registry: _Registry, as_json: AsJson = False) -> None:
    """List who was certified, until when, and who was revoked.

    Example: fedpeft server clients --registry keys/registry
    """
    from fedpeft.secagg.trust.registry import Registry

    entries = Registry(registry).entries()
    if as_json:
        rows = [{**vars(entry), "public": entry.public.hex()} for entry in entries]
        typer.echo(json.dumps({"clients": rows}))
        return
    table = Table("Client", "Key", "Until", "", box=None, pad_edge=False)
    for entry in entries:
        table.add_row(entry.client, entry.public.hex()[:12], _day(entry.expiry), "revoked" if entry.revoked else "")
    Console().print(table)


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
