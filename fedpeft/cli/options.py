"""What several verbs have in common: options with one name and one help, how they stop, and how they complain."""

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

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def on_signals(stop: Callable[[], None], hurry: Callable[[], None] | None = None) -> None:
    """Stop gracefully on SIGTERM and Ctrl-C.

    Parameters
    ----------
    stop : callable
        At the first signal.
    hurry : callable, optional
        At every further one, where something must not be left behind; without it a second one ends the process.
    """

    def heard(number: int, frame: FrameType | None) -> None:
        for known in _SIGNALS:
            signal.signal(known, (lambda *_: hurry()) if hurry else signal.SIG_DFL)
        stop()

    for number in _SIGNALS:
        signal.signal(number, heard)


def complain(line: str) -> None:
    """Say in one line, on standard error, what is wrong."""
    from rich.console import Console
    from rich.markup import escape

    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]error[/] {escape(line)}")


def require_extra(verb: str, extra: str, *needed: str) -> None:
    """Refuse a verb whose libraries are not installed.

    Raises
    ------
    FedpeftError
    """
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise FedpeftError(verb, f"no {', '.join(missing)}", "its extra", f"pip install 'fedpeft[{extra}]'")
