"""``fedpeft client fetch``, ``migrate`` and ``rollback``: versions on a device."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedpeft.cli.edge import AtHome, say, torch_trainer
from fedpeft.cli.options import AsJson
from fedpeft.cli.progress import downloading
from fedpeft.device.edge.home import Home
from fedpeft.device.edge.membership import Membership
from fedpeft.device.edge.policy import ANYTIME
from fedpeft.device.versions.document import Trust
from fedpeft.device.versions.fetch import fetch as bring
from fedpeft.device.versions.installed import Installed
from fedpeft.device.versions.migrate import abandon
from fedpeft.device.versions.migrate import migrate as go_over
from fedpeft.device.versions.source import open_source
from fedpeft.device.versions.version import STABLE
from fedpeft.errors import ShelfError

_SAID = {
    "current": "is what answers here already",
    "installed": "answers from now on",
    "refused": "is the one that you went back from; what answers stays until there is another",
    "waiting": "is for another base than your adapter, which answers on until `fedpeft client migrate`",
}
"""What came of a fetch, for people."""


def fetch(
    home: AtHome,
    source: Annotated[str, typer.Option("--from", help="An https URL, or a folder.")],
    pinned: Annotated[
        Path | None, typer.Option(help="pinned.json, as the app has it; by default what enrolment left.")
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(help="The only TLS authority to believe; enrolment's, or else the system's.")
    ] = None,
    channel: Annotated[str, typer.Option(help="Whose head to bring.")] = STABLE,
    as_json: AsJson = False,
) -> None:
    """Bring this device to a federation's newest version: only what it lacks, proven before it is used.

    Example: fedpeft client fetch --home me --from https://fed.example.org --pinned pinned.json --ca ca.pem
    """
    member = Membership.find(Home(home).federation) if pinned is None else None
    if member is not None:
        pinned, ca = member.pinned, ca or member.ca
    if pinned is None:
        raise ShelfError("--pinned", "none", "pinned.json of the federation", "whose versions are to be believed?")
    with downloading() as progress:
        got = bring(open_source(source, ca), Trust.read(pinned), Installed(home), channel, progress=progress)
    facts = {"version": got.version.id, "number": got.number, "outcome": got.outcome, "bytes": got.bytes}
    line = f"version {got.version.id[:12]}, number {got.number} of {channel}, {_SAID[got.outcome]}"
    say(facts, f"{line}; {got.bytes:,} bytes came", as_json)


def migrate(
    home: AtHome,
    now: Annotated[bool, typer.Option("--now", help="Whatever the policy says.")] = False,
    drop: Annotated[bool, typer.Option("--drop", help="Do without a personal adapter; the texts stay.")] = False,
    as_json: AsJson = False,
) -> None:
    """Learn your adapter anew on the base of the version that waits, and let both answer.

    Example: fedpeft client migrate --home me --now
    """
    installed = Installed(home)
    if drop:
        version = abandon(installed)
        say({"version": version.id}, f"version {version.id[:12]} answers, without a personal adapter", as_json)
        return
    with Console(stderr=True).status("learning"):
        learned = go_over(installed, torch_trainer(), ANYTIME if now else None)
    line = f"learnt anew from {learned.messages} messages in {learned.seconds:.0f} s; the new base and adapter answer"
    say(asdict(learned), line, as_json)


def rollback(home: AtHome, as_json: AsJson = False) -> None:
    """Go back to the version before, on this device; a personal adapter for another base is removed.

    Example: fedpeft client rollback --home me
    """
    version = Installed(home).rollback()
    say({"version": version.id}, f"version {version.id[:12]} answers again", as_json)
