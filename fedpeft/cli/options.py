"""What several verbs have in common: options with one name and one help, and how they stop."""

from __future__ import annotations

import signal
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from fedpeft.errors import FedpeftError

Run = Annotated[str, typer.Option(help="A run's name or folder, or 'latest'.")]
Runs = Annotated[Path, typer.Option(help="Where runs are kept.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def on_signals(stop: Callable[[], None]) -> None:
    """Stop gracefully on SIGTERM and Ctrl-C; a second one ends the process as usual."""

    def heard(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, heard)


def require_extra(verb: str, extra: str, *needed: str) -> None:
    """Refuse a verb whose libraries are not installed.

    Raises
    ------
    FedpeftError
    """
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise FedpeftError(verb, f"no {', '.join(missing)}", "its extra", f"pip install 'fedpeft[{extra}]'")
