"""Versions as they are listed and shown, whoever reads them: the operator's shelf, a folder, a server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import typer

from fedpeft.cli.tables import show_facts, table
from fedpeft.device.versions.document import Trust
from fedpeft.device.versions.source import Source, history, open_source
from fedpeft.device.versions.version import KINDS, STABLE, Head, Version, find
from fedpeft.errors import FetchError, ShelfError

PINNED = "pinned.json"

FromShelf = Annotated[str | None, typer.Option("--shelf", help="A shelf of versions: a folder, or an https URL.")]
Pinned = Annotated[
    Path | None, typer.Option(help="Whose versions are believed; the pinned.json in the shelf's folder by default.")
]
Authority = Annotated[Path | None, typer.Option("--ca", help="The only TLS authority to believe.")]
Channel = Annotated[str, typer.Option(help="Whose versions.")]


class Visit:
    """A look at a shelf, through what a device sees of it.

    Parameters
    ----------
    where : str
    pinned, ca : Path, optional
    channel : str

    Raises
    ------
    ShelfError
        When there is no shelf, or nobody says whose versions are believed.
    """

    def __init__(self, where: str, pinned: Path | None, ca: Path | None, channel: str = STABLE) -> None:
        self._source: Source = open_source(where, ca)
        if pinned is None and "://" in where:
            raise ShelfError("--pinned", "none", "pinned.json of the federation", "a server's word is not enough")
        self._versions = list(history(self._source, Trust.read(pinned or Path(where) / PINNED), channel))

    def list(self, as_json: bool) -> None:
        """Print a channel's version and those it came after."""
        show_versions(self._versions, {}, as_json)

    def show(self, name: str, as_json: bool) -> None:
        """Print one of them; ``global`` is the newest."""
        version = self._versions[0] if name == "global" else find(name, self._versions)
        show_facts(facts(version), as_json)

    def verify(self, names: Sequence[str], as_json: bool) -> bool:
        """Read every file of some versions, or of all; return whether all are what was signed."""
        chosen = [find(name, self._versions) for name in names] or self._versions
        checked: dict[str, str] = {}
        for version in chosen:
            for kind, name, file in version.files():
                if file.sha256 not in checked:
                    reason = self._read(file.sha256, file.bytes)
                    checked[file.sha256] = reason and f"{name} of the {kind} of version {version.id[:12]}: {reason}"
        wrong = {name: reason for name, reason in checked.items() if reason}
        show_verdict(f"{len(chosen)} versions, {len(checked)} files", wrong, as_json)
        return not wrong

    def _read(self, name: str, size: int) -> str:
        digest = sha256()
        try:
            with self._source.blob(name, 0, size) as stream:
                for block in stream.blocks:
                    digest.update(block)
        except (ShelfError, FetchError) as error:
            return str(error)
        return "" if digest.hexdigest() == name else "damaged"


def show_versions(versions: Sequence[Version], heads: dict[str, Head], as_json: bool) -> None:
    """Print versions in a table, the channels whose heads they are beside them."""
    of = {
        v.id: ", ".join(f"{name} {head.number}" for name, head in heads.items() if head.version == v.id)
        for v in versions
    }
    if as_json:
        typer.echo(json.dumps({"versions": [{**facts(v), "head_of": of[v.id]} for v in versions]}))
        return
    columns = ("version", "head of", "run", "round", "base", "top-3")
    rows = [
        (
            v.id[:12],
            of[v.id],
            v.run,
            v.round,
            v.base[:8],
            f"{v.metrics['top3']:.1%}" if "top3" in v.metrics else "",
        )
        for v in versions
    ]
    table(f"{len(versions)} versions", columns, rows, "round top-3")


def show_verdict(what: str, wrong: dict[str, str], as_json: bool) -> None:
    """Print what was read and what is wrong."""
    if as_json:
        typer.echo(json.dumps({"checked": what, "wrong": wrong}))
    else:
        typer.echo("\n".join(wrong.values()) if wrong else f"{what}: whole")


def facts(version: Version) -> dict[str, Any]:
    """Return what there is to know of a version."""
    said = version.model_dump(mode="json", exclude={"bundles", "format", "created"})
    sizes = {f"{kind}_bytes": version.size(kind) for kind in KINDS}
    return {"version": version.id, **said, "created": _moment(version), **sizes}


def _moment(version: Version) -> str:
    return datetime.fromtimestamp(version.created, UTC).isoformat(timespec="minutes")
