"""``fedpeft client``: a device's own text and adapter; its keys and certificate; its part in a federation."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedpeft.cli import edge
from fedpeft.cli.options import on_signals
from fedpeft.files import write_whole

client = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown", help=__doc__)

for verb in (edge.consent, edge.add, edge.store, edge.personalize, edge.forget):
    client.command()(verb)

_Identity = Annotated[Path, typer.Option("--identity", help="Folder of the key and the certificate.")]
_Pinned = Annotated[Path, typer.Option("--pinned", help="pinned.json, as the app has it.")]


@client.command()
def request(
    name: Annotated[str, typer.Argument(help="The client's name in the federation.")],
    identity: _Identity,
    pinned: _Pinned,
    out: Annotated[Path, typer.Option(help="The request, for the registry; not secret.")],
) -> None:
    """Make this device's keys, which never leave it, and a request to certify it.

    Example: fedpeft client request ada --identity me --pinned pinned.json --out ada.request.json
    """
    from fedpeft.secagg.trust.enrolling import Pinned, ask

    write_whole(out, ask(name, identity, Pinned.read(pinned)))
    Console(highlight=False, soft_wrap=True).print(f"{out}: give it to the registry; the keys stay in {identity}")


@client.command()
def accept(
    certificate: Annotated[Path, typer.Argument(help="What the registry gave.")], identity: _Identity, pinned: _Pinned
) -> None:
    """Check a certificate against what the app pins, and keep it.

    Example: fedpeft client accept ada.certificate.json --identity me --pinned pinned.json
    """
    from fedpeft.secagg.trust.enrolling import Pinned
    from fedpeft.secagg.trust.enrolling import accept as take

    found = take(identity, certificate, Pinned.read(pinned), time.time())
    Console(highlight=False, soft_wrap=True).print(f"{found.client} is enrolled: {identity}")


@client.command()
def join(
    folder: Annotated[Path, typer.Argument(help="The device's own, for all that it keeps.")],
    server: Annotated[str, typer.Option(help="HOST:PORT of the server.")],
    scenario: Annotated[Path, typer.Option(help="The scenario, as the app has it: nothing else is run.")],
    identity: _Identity,
    pinned: _Pinned,
    ca: Annotated[Path, typer.Option(help="ca.pem of the server, as the app has it.")],
    device: Annotated[
        str, typer.Option(help="Which of the scenario's [[devices]] this is; by default drawn by the scenario.")
    ] = "",
) -> None:
    """Take part in a federation's rounds until stopped; errors of server and network are waited out.

    Example: fedpeft client join device --server fed.example.org:8000 --scenario keyboard.toml --identity me
    --pinned pinned.json --ca ca.pem
    """
    from fedpeft.federation.joining import join_federation

    node = join_federation(folder, server, scenario, identity, pinned, ca, typer.echo, device=device)
    on_signals(node.stop)
    node.run()
    typer.echo(f"stopped after {node.answered} messages")
