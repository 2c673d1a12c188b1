"""What a run shows while it works: stage, clients, loss, bytes, time left; one line a round stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars


class Progress:
    """A watcher of runs that draws on standard error, so that standard output stays a script's.

    Parameters
    ----------
    quiet : bool
        Draw nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        console = Console(stderr=True, quiet=quiet, highlight=False)
        self._bars = Bars(
            TextColumn("{task.description:<14}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=console,
            transient=True,
        )
        self._rounds = self._bars.add_task("rounds", total=None, note="", visible=False)
        self._clients = self._bars.add_task("starting", total=None, note="loading base and clients")

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def stage(self, name: str, done: int, total: int) -> None:
        """Move the clients' bar; a new stage begins it anew."""
        task = self._bars.tasks[self._clients]
        if task.description != name:
            self._bars.reset(self._clients, description=name, total=total, note="")
        self._bars.update(self._clients, completed=done, total=total)

    def round(self, row: dict[str, Any], rounds: int) -> None:
        """Move the rounds' bar and print the round's line."""
        note = describe(row)
        self._bars.update(self._rounds, completed=row["round"], total=rounds, note="", visible=True)
        self._bars.console.print(f"round {row['round']:>2}/{rounds} {note}", soft_wrap=True)


@contextmanager
def downloading() -> Iterator[Callable[[int, int], None]]:
    """Yield what is told how many bytes came and how many there are, and draws it on standard error."""
    columns = (
        BarColumn(bar_width=28),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def describe(row: dict[str, Any]) -> str:
    """Say in one line what a round did."""
    if row.get("burnt"):
        return f"burnt: {row['contributors']} contributors, the adapter stays as it was"
    parts = []
    if row["round"]:
        parts.append(f"{row['contributors']} clients")
        parts.append(f"loss {row['train_loss']:.3f}")
    validation = row.get("validation")
    if validation:
        parts.append(f"validation perplexity {validation['perplexity']:.2f}, top-3 {validation['top3']:.1%}")
    if row["round"]:
        parts.append(f"{(row['bytes_up'] + row['bytes_down']) / 1e3:.0f} kB")
    return " · ".join(parts)
