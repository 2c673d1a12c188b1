"""Quality against the bytes a client sends in a round, with the methods that nothing beats on a line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpeft.compare.labels import Label, place
from fedpeft.compare.pareto import front
from fedpeft.compare.row import FULL, Comparison
from fedpeft.compare.table import QUALITY
from fedpeft.report.canvas import GOOD, INK, MUTED, OTHER, PAPER, panel, save
from fedpeft.report.wording import percent, size

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PIXELS = (900, 540)
_ROOM = 0.09


def draw(comparison: Comparison, paths: list[Path]) -> None:
    """Draw a comparison that has rows into files, ``.svg`` or ``.png`` by their names."""
    for path in paths:
        save(path, PIXELS, lambda figure: _paint(figure, comparison))


def _paint(figure: Figure, comparison: Comparison) -> None:
    word = QUALITY[comparison.metric]
    axes = panel(figure, (4, 34, PIXELS[0] - 12, PIXELS[1] - 38), f"Test {word}", right=16)
    figure.text(4 / PIXELS[0], 1 - 6 / PIXELS[1], _title(comparison), color=INK, va="top", fontsize=14, weight="bold")
    rows, best = comparison.rows, front(comparison.rows)
    axes.set_xscale("log")
    axes.plot(
        [row.bytes_up for row in best],
        [row.quality for row in best],
        color=GOOD,
        linewidth=1.4,
        drawstyle="steps-post",
        alpha=0.55,
        zorder=2,
    )
    names = {row.method for row in best}
    labels = []
    for row in [*best, *(row for row in rows if row.method not in names)]:
        colour = GOOD if row.method in names else MUTED
        fill = colour if row.method in names else PAPER
        axes.plot([row.bytes_up], [row.quality], "o", color=colour, markerfacecolor=fill, markersize=6, zorder=3)
        style: dict[str, Any] = {"color": colour, "fontsize": 10.5, "zorder": 4}
        if row.method in names:
            style["weight"] = "bold"
        labels.append(Label(row.method, row.bytes_up, row.quality, style))
    _limits(axes, comparison)
    base = _base(comparison)
    if base is not None and comparison.reference is not None:
        axes.axhline(base, color=INK, linewidth=1.0, linestyle=(0, (5, 3)), zorder=1)
        left = axes.get_xlim()[0]
        axes.annotate(
            f"{comparison.reference.what}: {percent(base)}", (left, base), (4, 4), textcoords="offset points", color=INK
        )
    full = comparison.by_name.get(FULL)
    if full is not None:
        axes.axhline(full.quality, color=OTHER, linewidth=0.8, linestyle=(0, (1, 3)), zorder=1)
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(lambda value, _: size(value).replace(".0 ", " "))
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    axes.set_xlabel("Sent by a client in a round, logarithmic")
    place(axes, labels)


def _limits(axes: Any, comparison: Comparison) -> None:
    sent = [row.bytes_up for row in comparison.rows]
    axes.set_xlim(min(sent) / 2, max(sent) * 2)
    heights = [row.quality for row in comparison.rows]
    base = _base(comparison)
    if base is not None:
        heights.append(base)
    room = _ROOM * max(max(heights) - min(heights), 0.01)
    axes.set_ylim(min(heights) - room, max(heights) + room)


def _base(comparison: Comparison) -> float | None:
    sizes = comparison.reference.sizes if comparison.reference else {}
    return sizes[max(sizes, key=float)].quality if sizes else None


def _title(comparison: Comparison) -> str:
    best = front(comparison.rows)
    full = comparison.by_name.get(FULL)
    others = [row for row in best if row.method != FULL]
    if full is None or not others:
        return f"{comparison.name}: {len(comparison.rows)} methods"
    cheapest = max(others, key=lambda row: row.quality)
    ratio = full.bytes_up / cheapest.bytes_up
    return (
        f"{cheapest.method} reaches {percent(cheapest.attainment, 0)} of full fine-tuning's "
        f"{QUALITY[comparison.metric]} for {ratio:,.0f} times fewer bytes"
    )
