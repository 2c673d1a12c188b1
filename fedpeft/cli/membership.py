"""``fedpeft client``, among others: a device enrols with a one-time token, and takes part in rounds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from fedpeft.cli import edge
from fedpeft.cli.edge import AtHome
from fedpeft.cli.options import AsJson, on_signals, require_extra
from fedpeft.device.edge.client import EdgeClient
from fedpeft.device.edge.events import Adopted, Contributed, Declined, Event, Linked
from fedpeft.device.edge.home import Home
from fedpeft.device.edge.policy import ANYTIME, Policy
from fedpeft.errors import FedpeftError

_LONGEST = 4096
_BY_HAND = "Without the gate"


def enrol(
    home: AtHome,
    token: Annotated[
        str, typer.Argument(envvar="FEDPEFT_TOKEN", help="What the operator gave; '-' reads it from standard input.")
    ],
    agree: Annotated[bool, typer.Option("--agree", help="Agree that this device keeps what you write.")] = False,
    add: Annotated[Path | None, typer.Option("--add", help="Messages to begin with, as for `client add`.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make this device a member of the federation that a token invites it to; broken off, the same command goes on.

    Example: fedpeft client enrol TOKEN --home me --agree --add chat.jsonl
    """
    from fedpeft.gate import enrol as ask

    messages = edge.messages_in(add) if add else []
    member = ask(home, sys.stdin.read(_LONGEST) if token == "-" else token)  # noqa: S105  (no secret: a dash)
    store = Home(home).store()
    if agree:
        store.agree()
    if messages:
        store.extend(messages)
    facts = {"client": member.client, "federation": member.federation, "server": member.server}
    line = f"{member.client} is enrolled in {member.federation}; its server is {member.server}"
    typer.echo(json.dumps(facts) if as_json else line)


def join(
    home: AtHome,
    now: Annotated[bool, typer.Option("--now", help="Whatever the policy says.")] = False,
    once: Annotated[bool, typer.Option("--once", help="End when one run is over.")] = False,
    personalize: Annotated[bool, typer.Option("--personalize", help="Train the personal adapter at the end.")] = False,
    device: Annotated[str, typer.Option(help="Which of the scenario's [[devices]] this is.")] = "",
    server: Annotated[str, typer.Option(help="HOST:PORT of the server.", rich_help_panel=_BY_HAND)] = "",
    scenario: Annotated[Path | None, typer.Option(help="The scenario.", rich_help_panel=_BY_HAND)] = None,
    identity: Annotated[Path | None, typer.Option(help="Folder of the keys.", rich_help_panel=_BY_HAND)] = None,
    pinned: Annotated[Path | None, typer.Option(help="pinned.json.", rich_help_panel=_BY_HAND)] = None,
    ca: Annotated[Path | None, typer.Option(help="ca.pem of the server.", rich_help_panel=_BY_HAND)] = None,
) -> None:
    """Take part in a federation's rounds until stopped; errors of server and network are waited out.

    A device that enrolled knows all it needs. One that was certified by hand names it.

    Example: fedpeft client join --home me --once --personalize
    """
    require_extra("fedpeft client join", "federate", "flwr", "torch")
    if scenario and identity and pinned and ca:
        _join_by_hand(home, server, scenario, identity, pinned, ca, device)
        return
    if scenario or identity or pinned or ca or server:
        raise FedpeftError("options", "some", "all of --server, --scenario, --identity, --pinned and --ca, or none")
    from fedpeft.federation.on_device import Rounds

    # Who uses the device is not to be seen from a process of its own, so it is not waited for.
    policy = ANYTIME if now else Policy(idle=None)
    client = EdgeClient(home, observer=_say)
    on_signals(client.stop)
    joined = client.join(Rounds(device=device), policy, once=once)
    typer.echo(f"took part in {joined.contributions} rounds")
    if personalize:
        typer.echo(edge.told(edge.learn(client, policy)))


def _join_by_hand(home: Path, server: str, scenario: Path, identity: Path, pinned: Path, ca: Path, device: str) -> None:
    from fedpeft.federation.joining import join_federation

    node = join_federation(home, server, scenario, identity, pinned, ca, typer.echo, device=device)
    on_signals(node.stop)
    node.run()
    typer.echo(f"stopped after {node.answered} messages")


def _say(event: Event) -> None:
    if isinstance(event, Linked):
        typer.echo(event.line)
    elif isinstance(event, Declined):
        typer.echo(f"not training now: {'; '.join(event.reasons)}")
    elif isinstance(event, Contributed):
        typer.echo(f"took part in round {event.round}")
    elif isinstance(event, Adopted):
        typer.echo(f"the adapter of round {event.round} answers from now on")
