"""``fedpeft rank``: which reply would this person give, from onnxruntime alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedpeft.cli.options import AsJson, Run, Runs
from fedpeft.device.folders import (
    EVERYBODY,
    LATEST,
    NOBODY,
    adapter_folder,
    base_folder,
    find_run,
    require_owner,
    users,
)
from fedpeft.device.loaded import LoadedAdapter
from fedpeft.device.ranker import Ranker
from fedpeft.errors import RunError, nearest


def rank(
    *,
    user: Annotated[str, typer.Option(help=f"Whose adapter; {EVERYBODY!r} for the shared one, {NOBODY!r} for none.")],
    context: Annotated[list[str], typer.Option(help="What was said before; may be given several times, in order.")],
    reply: Annotated[list[str], typer.Option(help="A possible reply; give several.")],
    run: Run = LATEST,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Rank replies as a person would give them.

    Example: fedpeft rank --user user-02 --context "how was your day?" --reply "it was ok" --reply "the blue one"
    """
    folder = find_run(run, runs)
    ranker = Ranker(base_folder(folder))
    ranked = ranker.rank(context, reply, None if user == NOBODY else _load(ranker, folder, user))
    if as_json:
        answers = [one._asdict() for one in ranked]
        found = {"user": user, "run": str(folder), "context": context, "replies": answers}
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    table = Table("reply", "probability", box=None, pad_edge=False)
    for one in ranked:
        table.add_row(Text(one.reply), f"{one.probability:.1%}")
    Console().print(table)


def _load(ranker: Ranker, folder: Path, user: str) -> LoadedAdapter:
    people = users(folder)
    if user not in people:
        remedy = nearest(user, people) if people else "export the run first: `fedpeft export`"
        raise RunError("user", user, f"somebody with an adapter in {folder}", remedy)
    adapter = ranker.load(adapter_folder(folder, user))
    require_owner(adapter.manifest, user)
    return adapter
