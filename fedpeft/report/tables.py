"""The results as tables. One :class:`Grid` is shown in the terminal, in Markdown and on the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from fedpeft.report.devices import PARTS
from fedpeft.report.figures import PAIRS
from fedpeft.report.findings import cautions, facts
from fedpeft.report.record import CONTROLS
from fedpeft.report.wording import GLOSSARY, Terms, interval, name_of, number, percent, points, signed, terms_of

if TYPE_CHECKING:
    from rich.console import RenderableType

_WIDE = 96  # columns of a terminal that has room for every table as it is


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of finished text.

    Parameters
    ----------
    head : tuple of str
        The column heads.
    rows : tuple of tuples of str
    words : int
        How many leading columns hold words; the others hold numbers and are aligned right.
    strong : str, optional
        The first cell of the row to stress.
    label : str, optional
        What the page calls the table.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1
    strong: str = ""
    label: str = ""


def results(figures: Mapping[str, Any]) -> Grid:
    """Tabulate who predicts how well, mean over people."""
    terms = terms_of(figures["task"])
    first = terms.label if terms.metric == "top1" else "Top-1"
    typed = ("Keystrokes saved",) if terms.typed else ()
    written = (figures["rouge_l"],) if figures["rouge_l"] else ()
    return Grid(
        ("Model", "What it is", "Perplexity", first, "Top-3", *typed, *("ROUGE-L" for _ in written)),
        tuple(
            (
                name_of(control),
                GLOSSARY[control],
                number(figures["perplexity"][control]),
                percent(figures["mean_top1"][control]),
                percent(figures["mean_top3"][control]),
                *(percent(figures["keystrokes_saved"][control]) for _ in typed),
                *(percent(rouge["mean"][control]) for rouge in written),
            )
            for control in CONTROLS
        ),
        words=2,
        strong="personal",
        label="Results by model",
    )


def differences(figures: Mapping[str, Any]) -> Grid:
    """Tabulate the differences between models with their intervals."""
    rows, terms = [], terms_of(figures["task"])
    for first, second in PAIRS:
        right, loss = (figures["intervals"][metric][f"{first}-{second}"] for metric in (terms.metric, "loss"))
        rows.append(
            (
                f"{name_of(first)} − {name_of(second)}",
                points(right["mean"]),
                interval(right["low"], right["high"], scale=100),
                signed(loss["mean"], 3),
                interval(loss["low"], loss["high"], digits=3),
            )
        )
    head = ("Difference", f"{terms.label}, points", "95% interval", f"Loss, nats/{terms.unit}", "95% interval")
    return Grid(head, tuple(rows), label="Differences between models")


def seeds(figures: Mapping[str, Any]) -> Grid | None:
    """Tabulate the main figures by seed, their mean and standard deviation; None for a single run."""
    if not figures["seeds"]:
        return None
    terms = terms_of(figures["task"])
    head = ("Seed", "Perplexity, global", "personal", f"{terms.label}, global", "personal", "Better off", "Worse off")
    rows = [(seed, *_seed_cells(part, terms)) for seed, part in figures["seeds"].items()]
    spread = (("mean", *_seed_cells(figures["seed_mean"], terms)), ("SD", *_seed_cells(figures["seed_sd"], terms)))
    return Grid(head, (*rows, *spread), label="Results by seed")


def _seed_cells(part: Mapping[str, Any], terms: Terms) -> tuple[str, ...]:
    right = part[f"mean_{terms.metric}"]
    return (
        number(part["perplexity"]["global"], 2),
        number(part["perplexity"]["personal"], 2),
        percent(right["global"], 2),
        percent(right["personal"], 2),
        percent(part["improved_share"]),
        percent(part["harmed_share"]),
    )


def by_device(figures: Mapping[str, Any]) -> Grid | None:
    """Tabulate the classes; None where all clients are alike."""
    if not figures["devices"]:
        return None
    head = ("Devices", "Base held in", "Clients", "Scored", *(f"Loss, {name_of(c)}" for c in PARTS))
    rows = tuple(
        (
            kind["name"],
            kind["held"],
            f"{kind['clients']:,}",
            f"{kind['people']:,}",
            *(number(kind["loss"][c], 3) for c in PARTS),
        )
        for kind in figures["devices"]
    )
    return Grid(head, rows, words=2, label="Results by class of devices")


def grids(figures: Mapping[str, Any]) -> list[Grid]:
    """Return the tables there are numbers for, in order."""
    if not figures["personalized"]:
        return []
    found = (results(figures), differences(figures), by_device(figures), seeds(figures))
    return [grid for grid in found if grid is not None]


def markdown(figures: Mapping[str, Any], status: str = "finished") -> str:
    """Write the results as Markdown, as published beside a scenario."""
    parts = [markdown_grid(grid) for grid in grids(figures)]
    parts.append("\n".join(f"- {label}: {text}" for label, text in facts(figures)))
    parts += [f"> {caution}" for caution in cautions(figures, status)]
    return "\n\n".join(parts) + "\n"


def markdown_grid(grid: Grid) -> str:
    """Write one table as Markdown."""
    rule = [":--" if column < grid.words else "--:" for column in range(len(grid.head))]
    rows = [tuple(f"**{c}**" for c in row) if row[0] == grid.strong else row for row in grid.rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (grid.head, rule, *rows))


def terminal(figures: Mapping[str, Any], title: str, status: str = "finished", width: int = 100) -> RenderableType:
    """Lay the results out for a terminal.

    Parameters
    ----------
    figures : mapping
        From :func:`fedpeft.report.figures.figures`.
    title : str
        The run's name.
    status : str
        The run's status.
    width : int
        Columns there are; with fewer than 96, the models are not explained.

    Returns
    -------
    rich renderable
    """
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    lines = Table.grid(padding=(0, 2))
    lines.add_column(style="dim", no_wrap=True)
    for label, text in facts(figures):
        lines.add_row(label, Text(text))
    parts: list[RenderableType] = [Text(title, style="bold")]
    parts += [terminal_grid(grid if width >= _WIDE else _unexplained(grid), width) for grid in grids(figures)]
    parts.append(Padding(lines, (1, 1)))
    parts += [Text(f" ! {caution}", style="yellow") for caution in cautions(figures, status)]
    return Group(*parts)


def _unexplained(grid: Grid) -> Grid:
    """Leave out the second column of words."""
    if grid.words < 2:
        return grid
    rows = tuple(row[:1] + row[2:] for row in grid.rows)
    return replace(grid, head=grid.head[:1] + grid.head[2:], rows=rows, words=1)


def terminal_grid(grid: Grid, width: int) -> RenderableType:
    """Lay one table out for a terminal of so many columns."""
    from rich import box
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, header_style="dim")
    for column, head in enumerate(grid.head):
        # Left to itself rich would break numbers where room is short: heads are broken here, numbers never.
        least = max(len(text) for text in (*head.split(), *(row[column] for row in grid.rows)))
        side: Literal["left", "right"] = "left" if column < grid.words else "right"
        table.add_column(Text(head), justify=side, width=None if width >= _WIDE else least)
    for row in grid.rows:
        table.add_row(*map(Text, row), style="bold" if row[0] == grid.strong else "")
    return Padding(table, (1, 0, 0, 0), expand=False)
