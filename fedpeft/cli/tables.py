"""Facts and tables as verbs print them: for people, or as one JSON object for scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import typer


def show_facts(facts: Mapping[str, Any], as_json: bool) -> None:
    """Print facts as one JSON object, or as a table."""
    if as_json:
        typer.echo(json.dumps(facts))
        return
    rows = [(key.replace("_", " "), f"{v:.3g}" if isinstance(v, float) else _plain(v)) for key, v in facts.items()]
    table("", ("", ""), rows)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], right: str = "") -> None:
    """Print a table; the columns named in ``right`` are numbers."""
    from rich.console import Console
    from rich.table import Table

    found = Table(title=title or None, title_justify="left", box=None, show_header=any(columns), pad_edge=False)
    for column in columns:
        kept = bool(right) and column != columns[0]
        found.add_column(column, justify="right" if column in right.split() else "left", overflow="fold", no_wrap=kept)
    for row in rows:
        found.add_row(*(str(cell) for cell in row))
    Console(highlight=False, markup=False).print(found)


def _plain(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={entry}" for key, entry in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
