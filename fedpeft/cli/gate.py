"""``fedpeft server``, the gate: one-time tokens, and the service that turns them into certificates."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fedpeft.cli.options import AsJson, require_extra
from fedpeft.gate.notice import PORT, TLS
from fedpeft.signing.tls import CA, SERVER, SERVER_KEY

Registry = Annotated[Path, typer.Option("--registry", help="The registry's folder.")]

_MINUTE, _HOUR = "%Y-%m-%d %H:%M", 24.0


def token(
    client: Annotated[str, typer.Argument(help="The client's name in the federation.")],
    registry: Registry,
    hours: Annotated[float, typer.Option(min=0.01, max=8760, help="How long it holds.")] = _HOUR,
    gate: Annotated[
        str, typer.Option(help=f"HOST:PORT of the gate; by default the server's first name and {PORT}.")
    ] = "",
    ca: Annotated[Path | None, typer.Option(help="ca.pem; by default the one beside the registry.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a one-time token with which a device enrols, and print it, once: only its hash is kept.

    Example: fedpeft server token user-00 --registry fed/registry --hours 24
    """
    from fedpeft.gate.notice import authority_of, public_host
    from fedpeft.gate.tokens import Tokens
    from fedpeft.secagg.trust.registry import Registry as Held

    held, folder = Tokens(Held(registry)), registry.resolve().parent
    address = gate or f"{public_host(folder)[0]}:{PORT}"
    made = held.issue(client, address, authority_of(ca or folder / TLS / CA), hours)
    typer.echo(json.dumps({"client": client, "id": made.id.hex(), "token": str(made)}) if as_json else str(made))


def tokens(
    registry: Registry,
    revoke: Annotated[str, typer.Option(help="Make void: a token's id, or all of a client's.")] = "",
    as_json: AsJson = False,
) -> None:
    """List the tokens, until when they hold and whether they were used; or make some void.

    Example: fedpeft server tokens --registry fed/registry --revoke user-00
    """
    from fedpeft.gate.tokens import Tokens
    from fedpeft.secagg.trust.registry import Registry as Held

    held = Tokens(Held(registry))
    if revoke:
        held.revoke(revoke)
    entries = held.entries()
    if as_json:
        typer.echo(json.dumps({"tokens": [vars(entry) for entry in entries]}))
        return
    table = Table("Id", "Client", "Until (UTC)", "", box=None, pad_edge=False)
    for entry in entries:
        until = datetime.fromtimestamp(entry.expiry, UTC).strftime(_MINUTE)
        table.add_row(entry.id, entry.client, until, "used" if entry.used else "")
    Console().print(table)


def gate(
    folder: Annotated[Path, typer.Argument(help="What `fedpeft server init` made.")],
    scenario: Annotated[Path, typer.Argument(help="What devices are to take part in, in TOML.")],
    listen: Annotated[str, typer.Option(help="The address that it listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = PORT,
    server: Annotated[str, typer.Option(help="HOST:PORT of the server, if server.toml does not say it.")] = "",
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long certificates hold.")] = 365,
) -> None:
    """Answer at the gate: who has a token gets a certificate. It holds the authority's key: keep it off the aggregator.

    What is published in FOLDER/shelf is served there too, to everybody.

    Example: fedpeft server gate fed chat.toml --port 8001
    """
    require_extra("fedpeft server gate", "serve", "starlette", "uvicorn")
    from fedpeft.gate.app import Gate
    from fedpeft.gate.notice import Notice
    from fedpeft.gate.tokens import Tokens
    from fedpeft.registry.routes import routes
    from fedpeft.registry.shelf import SHELF
    from fedpeft.secagg.trust.registry import REGISTRY
    from fedpeft.secagg.trust.registry import Registry as Held
    from fedpeft.serve.https import listen as listening
    from fedpeft.serve.https import serve_https

    made = Gate(Notice.of(folder, scenario, server), Tokens(Held(folder / REGISTRY)), days)
    sock = listening(listen, port)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"the gate of {made.notice.federation} is open at https://{listen}:{sock.getsockname()[1]}/gate/")
    serve_https(made.app(routes(folder / SHELF)), sock, folder / TLS / SERVER, folder / TLS / SERVER_KEY)
