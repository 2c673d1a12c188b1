"""``fedpeft server``: a federation's keys, who belongs to it, and the server that runs its rounds."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fedpeft.cli import gate
from fedpeft.cli.options import AsJson, complain, on_signals
from fedpeft.errors import RunError
from fedpeft.files import write_whole

if TYPE_CHECKING:
    from fedpeft.federation.deployed.server_folder import ServerFolder

server = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown", help=__doc__)

for verb in (gate.token, gate.tokens, gate.gate):
    server.command()(verb)

_DAY = 86_400
_Operator = Annotated[Path | None, typer.Option(help="Folder for the operator's key, on another machine say.")]


@server.command()
def init(
    folder: Annotated[Path, typer.Argument(help="For the registry, the server, and what clients' apps pin.")],
    federation: Annotated[str, typer.Option(help="Its name, which certificates carry.")],
    operator: _Operator = None,
    host: Annotated[list[str] | None, typer.Option(help="A name or address under which devices reach it.")] = None,
    listen: Annotated[str, typer.Option(help="The address that the server listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Its port.")] = 8000,
) -> None:
    """Make a federation's keys, its server's TLS certificates and settings.

    Example: fedpeft server init fed --federation keyboard --host fed.example.org --operator /media/stick
    """
    from fedpeft.federation.deployed.server_folder import found_server
    from fedpeft.secagg.trust.registry import OPERATOR

    held = operator or folder / "operator"
    made = found_server(folder, federation, held, listen, port, host or [])
    console = _console()
    console.print(f"{made.registry}: the authority's key, which certifies clients; keep it off the aggregator")
    console.print(f"{held / OPERATOR}: the operator's key, which signs runs; keep it off the aggregator too")
    console.print(f"{made.pinned_file}, {made.ca}: what every client's app pins; not secret")
    console.print(f"{made.path / 'server.toml'}: where the server listens, and how long it waits")


@server.command()
def up(
    folder: Annotated[Path, typer.Argument(help="What `fedpeft server init` made.")],
    scenario: Annotated[str, typer.Argument(help="The scenario to run.")],
    operator: _Operator = None,
    publish: Annotated[
        str, typer.Option(help="Put the finished run's adapter on FOLDER/shelf, as the head of this channel.")
    ] = "",
) -> None:
    """Run a scenario on a real server until it is finished; what dies is started again, and the run goes on.

    Example: fedpeft server up fed simulations/keyboard.toml --publish stable
    """
    from fedpeft.device.versions.version import require_channel
    from fedpeft.federation.deployed.server_folder import ServerFolder
    from fedpeft.federation.deployed.supervisor import Outcome, Supervisor
    from fedpeft.scenario import load_scenario

    held = operator or folder / "operator"
    channel = require_channel(publish) if publish else ""
    server = ServerFolder(folder)
    supervisor = Supervisor(server, load_scenario(Path(scenario)), held, _stamped)
    on_signals(supervisor.stop, supervisor.hurry)
    outcome = supervisor.run()
    if outcome is Outcome.FINISHED and channel:
        _publish(server, supervisor.run_folder.path, held, channel)
    if outcome is Outcome.STOPPED:
        _stamped("stopped; the same command resumes the run")
    if outcome is Outcome.FAILED:
        complain(supervisor.failure)
        raise typer.Exit(1)


def _publish(server: ServerFolder, run: Path, operator: Path, channel: str) -> None:
    """Put a run's adapter on the server's shelf; once more is as good as once."""
    from fedpeft.registry.publish import publish_run
    from fedpeft.registry.publisher import Publisher
    from fedpeft.registry.shelf import SHELF
    from fedpeft.secagg.trust.registry import OPERATOR
    from fedpeft.signing.keyfile import read_key

    publisher = Publisher(server.path / SHELF, server.pinned.federation, read_key(operator / OPERATOR))
    version, head = publish_run(run, publisher, channel)
    _stamped(f"version {version.id[:12]} is number {head.number} of {channel}: {publisher.folder}")


@server.command()
def drain(
    folder: Annotated[Path, typer.Argument(help="What `fedpeft server init` made.")],
    wait: Annotated[bool, typer.Option("--wait", help="Until it has ended.")] = False,
) -> None:
    """Let the round in progress finish and then end `server up`; the next `up` goes on with the next round.

    Example: fedpeft server drain fed --wait
    """
    from fedpeft.federation.deployed.drain import Drain
    from fedpeft.federation.deployed.server_folder import ServerFolder

    server, console = ServerFolder(folder), _console()
    if not server.runs:
        raise RunError(f"server {server.path}", "not running", "one that `fedpeft server up` runs", "nothing to drain")
    Drain(server.path).ask()
    console.print("the round in progress is finished, then the server ends")
    while wait and server.runs:
        time.sleep(0.5)


@server.command()
def status(
    folder: Annotated[Path, typer.Argument(help="What `fedpeft server init` made.")],
    as_json: AsJson = False,
    prometheus: Annotated[bool, typer.Option("--prometheus", help="Print Prometheus' text format.")] = False,
    check: Annotated[bool, typer.Option("--check", help="End with 1 unless everything runs and answers.")] = False,
) -> None:
    """Say what runs, who is there, and what asks for somebody.

    Example: fedpeft server status fed --json
    """
    from fedpeft.federation.deployed.exposition import exposition
    from fedpeft.federation.deployed.server_folder import ServerFolder
    from fedpeft.federation.deployed.status import healthy, status_of

    found = status_of(ServerFolder(folder))
    if as_json:
        typer.echo(json.dumps(found))
    elif prometheus:
        typer.echo(exposition(found), nl=False)
    else:
        _show(found)
    if check and not healthy(found):
        raise typer.Exit(1)


@server.command()
def renew(folder: Annotated[Path, typer.Argument(help="What `fedpeft server init` made.")]) -> None:
    """Replace the server's certificate; devices notice nothing. Start the server again afterwards.

    Example: fedpeft server renew fed
    """
    from fedpeft.federation.deployed.server_folder import ServerFolder
    from fedpeft.signing.tls import days_left, renew_certificate

    found = ServerFolder(folder)
    renew_certificate(found.certificate.parent, [*found.settings.hosts])
    _console().print(f"{found.certificate} holds for {days_left(found.certificate.parent):.0f} days")


@server.command()
def enrol(
    request: Annotated[Path, typer.Argument(help="What `fedpeft client request` wrote.")],
    registry: gate.Registry,
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
    _console().print(f"{asked.client} is certified until {_day(certificate.expiry)}: {out}")


@server.command()
def revoke(client: Annotated[str, typer.Argument(help="Whose keys.")], registry: gate.Registry) -> None:
    """Revoke a client's keys; a new one can be certified.

    Example: fedpeft server revoke ada --registry keys/registry
    """
    from fedpeft.secagg.trust.registry import Registry

    listed = Registry(registry).revoke(client)
    console = _console()
    console.print(f"{client} is revoked, list {listed.version}: {registry / 'revocations.json'}")


@server.command()
def clients(registry: gate.Registry, as_json: AsJson = False) -> None:
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


def _show(found: dict[str, Any]) -> None:
    console, clients = _console(), found["clients"]
    counts = {name: "unknown" if count is None else count for name, count in clients.items()}
    expiring = "unknown" if clients["expiring"] is None else len(clients["expiring"])
    running = ", ".join(found["programs"]) or "not running"
    console.print(f"{found['federation']} at {found['address']}: {running}{' (draining)' if found['draining'] else ''}")
    console.print(
        f"clients: {counts['enrolled']} enrolled ({expiring} expiring), {counts['online']} online, "
        f"{counts['revoked']} revoked, {counts['expired']} expired"
    )
    columns = (
        "Run",
        "Status",
        "Round",
        "Clients",
        "Burnt",
        "Rounds/h",
        "Last, s ago",
        "Bytes up",
        "Bytes down",
        "Privacy",
    )
    table = Table(*columns, box=None, pad_edge=False)
    keys = ("contributors", "burnt", "rounds_per_hour", "last_round_age", "bytes_up", "bytes_down")
    for run in found["runs"]:
        cells = ["-" if run[key] is None else f"{run[key]:.12g}" for key in keys]
        round_ = f"{run['round']} of {run['rounds']}"
        table.add_row(run["name"], run["status"], round_, *cells, run["privacy"]["mechanism"])
    console.print(table)
    for alert in found["alerts"]:
        console.print(f"alert: {alert['name']}: {alert['line']}", markup=False)


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def _stamped(line: str) -> None:
    typer.echo(f"{datetime.now(UTC).isoformat(timespec='seconds')} {line}")


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
