"""``fedpeft client``: a device's own text and adapter; its keys and certificate; its part in a federation."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedpeft.cli import edge, membership, versions
from fedpeft.files import write_whole

client = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown", help=__doc__)

for verb in (
    edge.consent,
    edge.add,
    edge.store,
    edge.personalize,
    edge.suggest,
    edge.forget,
    membership.enrol,
    membership.join,
):
    client.command()(verb)
for of_versions in (versions.fetch, versions.migrate, versions.rollback):
    client.command()(of_versions)

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
