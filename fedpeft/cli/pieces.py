"""What a comparison shows while it works: pieces done, time left; one line a finished method stays."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from fedpeft.compare import Comparison


class Pieces:
    """A watcher of comparisons that draws on standard error.

    Parameters
    ----------
    quiet : bool
        Draw nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.last: Comparison | None = None
        self._seen: set[str] = set()
        self._bars = Progress(
            TextColumn("{task.description:<18}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=Console(stderr=True, quiet=quiet, highlight=False),
            transient=True,
        )
        self._task = self._bars.add_task("starting", total=None, note="")

    def __enter__(self) -> Pieces:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begin(self, name: str) -> None:
        """Begin another comparison."""
        self._seen, self.last = set(), None
        self._bars.reset(self._task, description=name, total=None, note="loading base and text")

    def piece(self, name: str, done: int, total: int) -> None:
        """Move the bar."""
        self._bars.update(self._task, completed=done, total=total, note=name)

    def changed(self, comparison: Comparison) -> None:
        """Print what is new."""
        self.last = comparison
        from fedpeft.compare.table import described

        for name, line in described(comparison).items():
            if name not in self._seen:
                self._seen.add(name)
                self._bars.console.print(escape(line), soft_wrap=True)
