"""``fedpeft classify``: name the class of texts as one person would, from onnxruntime alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedpeft.cli.options import AsJson, Run, Runs
from fedpeft.device.classifier import Classifier
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
from fedpeft.errors import RunError, nearest


def classify(
    *,
    user: Annotated[str, typer.Option(help=f"Whose adapter and head; {EVERYBODY!r} for the shared one.")],
    text: Annotated[list[str], typer.Option(help="A text; may be given several times.")],
    run: Run = LATEST,
    runs: Runs = Path("runs"),
    among: Annotated[str, typer.Option(help="Only classes whose names begin so, such as 'banking/'.")] = "",
    top: Annotated[int, typer.Option(min=1, help="Likeliest classes to print.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Name the class of a text with a person's adapter and their own head.

    Example: fedpeft classify --user intents-00 --text "play some jazz"
    """
    folder = find_run(run, runs)
    people = users(folder)
    if user not in people:
        raise RunError("user", user, f"somebody with an adapter in {folder}", _who(user, people))
    classifier = Classifier(base_folder(folder))
    adapter = classifier.load(adapter_folder(folder, user))
    require_owner(adapter.manifest, user)
    labels = [label for label in adapter.manifest.labels if label.startswith(among)]
    if not labels:
        raise RunError(
            "among", among, f"what one of {user}'s labels begins with", nearest(among, adapter.manifest.labels)
        )
    answers = classifier.classify_all(text, adapter, labels)
    if as_json:
        found = [
            {"text": t, "classes": [{"label": s.label, "probability": s.probability} for s in scored[:top]]}
            for t, scored in zip(text, answers, strict=True)
        ]
        typer.echo(json.dumps({"user": user, "run": str(folder), "answers": found}, ensure_ascii=False))
        return
    table = Table("text", "class", "probability", box=None, pad_edge=False)
    for written, scored in zip(text, answers, strict=True):
        for i, one in enumerate(scored[:top]):
            table.add_row(Text("" if i else written), Text(one.label), f"{one.probability:.1%}")
    Console().print(table)


def _who(user: str, people: list[str]) -> str:
    if user == NOBODY:
        return "a base has no classes of its own: they are in the adapters"
    return nearest(user, people) if people else "export the run first: `fedpeft export`"
