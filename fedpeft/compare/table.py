"""A comparison as tables and sentences, the same in the terminal and in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedpeft.compare.pareto import front
from fedpeft.compare.row import FULL, Comparison, Reference, Row
from fedpeft.report.tables import Grid, markdown_grid, terminal_grid
from fedpeft.report.wording import NOTHING, counted, number, percent, size

if TYPE_CHECKING:
    from rich.console import RenderableType

QUALITY = {"top3": "top-3", "top1": "accuracy"}
"""What quality is called, by metric."""
_HEAD: tuple[str, ...] = ("Method", "Algebra", "Trained", "Share", "Sent per round", "Received")
_BRIEF = 110  # columns below which the first table leaves some out


def reached(comparison: Comparison, brief: bool = False) -> Grid:
    """Tabulate what methods reach for what they send, the best first; ``brief`` for narrow places."""
    best = {row.method for row in front(comparison.rows)}
    shares = sorted({share for row in comparison.rows for share in row.sizes}, key=float)
    word = QUALITY[comparison.metric]
    rows = [
        (
            f"{row.method} •" if row.method in best else row.method,
            *(() if brief else (row.algebra,)),
            f"{row.trainable:,}",
            *(() if brief else (percent(row.share, 2),)),
            size(row.bytes_up),
            *(() if brief else (size(row.bytes_down),)),
            *(percent(row.sizes[share].quality) for share in shares),
            percent(row.attainment),
            percent(row.gain_share, 0),
            percent(row.loss_share, 0),
        )
        for row in ordered(comparison)
    ]
    base = comparison.reference
    if base is not None:
        scores = (percent(base.sizes[s].quality) if s in base.sizes else NOTHING for s in shares)
        own = (f"{base.trainable:,}", *(() if brief else (percent(base.trainable / base.parameters, 2),)))
        sent = (NOTHING,) if brief else (NOTHING, NOTHING)
        rows.append((_short(base), *(() if brief else ("",)), *own, *sent, *scores, NOTHING, NOTHING, NOTHING))
    head = ("Method", "Trained", "Sent") if brief else _HEAD
    head += tuple(f"{word}, {percent(float(share), 0)} of data" for share in shares)
    return Grid((*head, "Attainment", "Gain share", "in loss"), tuple(rows), words=1 if brief else 2)


def costs(comparison: Comparison) -> Grid:
    """Tabulate what methods cost on a device, in the same order."""
    head = ("Method", "Rate", "File", "Base MB", "Memory MB", "Step ms", "Text ms", "Merged ms")
    rows: list[tuple[str, ...]] = [
        (
            row.method,
            f"{row.rate:g}",
            size(row.adapter_bytes),
            number(row.base_mb),
            number(row.peak_mb),
            number(row.step_ms),
            number(row.infer_ms, 2),
            number(row.merged_ms, 2),
        )
        for row in ordered(comparison)
    ]
    base = comparison.reference
    if base is not None:
        rows.append((_short(base), *[NOTHING] * 5, number(base.infer_ms, 2), NOTHING))
    return Grid(head, tuple(rows))


def _short(base: Reference) -> str:
    return "head alone" if base.trainable else "base"


def ordered(comparison: Comparison) -> list[Row]:
    """Return the rows, the best first; of equals the one that sends less."""
    return sorted(comparison.rows, key=lambda row: (-row.quality, row.bytes_up, row.method))


def notes(comparison: Comparison) -> list[str]:
    """Say what was done, and what the numbers cannot tell."""
    c = comparison
    texts = [
        f"{c.base} on {c.scenario['data']['federation']}, seed {c.seed}: {counted(c.clients, 'client', 'clients')} "
        f"pooled, {c.train_examples:,} training examples, {c.steps} steps of {c.batch} for every method; "
        f"{c.test_predictions:,} test predictions, standard error {100 * c.noise:.1f} points.",
        "• nothing else is as good for fewer bytes sent. Attainment is against full fine-tuning of the same steps; the "
        "gain share counts from the base. Times are processor time of one thread; memory is above the loaded base.",
    ]
    if FULL not in c.by_name:
        texts.append("Full fine-tuning has not been run to its end: no attainment.")
    if c.missing:
        texts.append(f"Not finished: {', '.join(c.missing)}.")
    return texts


def refusals(comparison: Comparison) -> list[str]:
    """Say which methods are no rows, and why."""
    return [f"{f.method} {f.kind} at {f.stage}: {f.reason}" for f in comparison.failures]


def markdown(comparison: Comparison, plot: str | None = None) -> str:
    """Write a comparison as Markdown.

    Parameters
    ----------
    comparison : Comparison
    plot : str, optional
        Name of the drawing that lies beside the file.
    """
    parts = [f"# {comparison.name}", *notes(comparison)[:1]]
    if comparison.rows:
        parts.append(markdown_grid(reached(comparison)))
        if plot:
            parts.append(f"![Quality against bytes sent]({plot})")
        parts.append(markdown_grid(costs(comparison)))
    parts += notes(comparison)[1:]
    if comparison.failures:
        parts.append("\n".join(f"- {text}" for text in refusals(comparison)))
    return "\n\n".join(parts) + "\n"


def terminal(comparison: Comparison, width: int) -> RenderableType:
    """Lay a comparison out for a terminal of so many columns."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    parts: list[RenderableType] = [Text(comparison.name, style="bold")]
    if comparison.rows:
        parts += [terminal_grid(reached(comparison, width < _BRIEF), width), terminal_grid(costs(comparison), width)]
    parts += [Padding(Text(text, style="dim"), (1, 1, 0, 1)) for text in notes(comparison)]
    parts += [Padding(Text(f"! {text}", style="yellow"), (0, 1)) for text in refusals(comparison)]
    return Group(*parts)


def described(comparison: Comparison) -> dict[str, str]:
    """Say in one line each what became of the methods that are finished."""
    word = QUALITY[comparison.metric]
    lines = {
        row.method: f"{row.method:<16} {word} {percent(row.quality)} · attainment {percent(row.attainment)} · "
        f"{row.trainable:,} trained · {size(row.bytes_up)} sent a round · {number(row.step_ms)} ms a step"
        for row in comparison.rows
    }
    return lines | {f.method: f"{f.method:<16} {f.kind} at {f.stage}: {f.reason}" for f in comparison.failures}
