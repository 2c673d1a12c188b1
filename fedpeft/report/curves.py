"""Quantities by round: read from a record, averaged over seeds, drawn with their ends written out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from fedpeft.report.canvas import BAD, GOOD
from fedpeft.report.record import Record, Round

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = Mapping[int, float]
"""A value by round; rounds without one are absent."""


def curves_of(record: Record, value: Callable[[Round], float | None]) -> list[Curve]:
    """Read one curve per seed; one curve when the record is no study."""
    found = ({r.round: value(r) for r in history} for history in record.histories)
    return [{r: v for r, v in curve.items() if v is not None} for curve in found]


def perplexity_at(r: Round) -> float | None:
    """Return the global adapter's validation perplexity after a round."""
    return r.validation.perplexity if r.validation else None


def top3_at(r: Round) -> float | None:
    """Return the global adapter's validation top-3 accuracy after a round."""
    return r.validation.top3 if r.validation else None


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Average over seeds, in the rounds that every seed has."""
    shared = set.intersection(*(set(curve) for curve in curves))
    return {r: fmean(curve[r] for curve in curves) for r in sorted(shared)}


def draw_curves(axes: Axes, curves: Sequence[Curve], form: Callable[[float], str]) -> None:
    """Draw the mean, each seed thinly behind it, and write out where it begins and ends."""
    mean = mean_curve(curves)
    for curve in curves if len(curves) > 1 else ():
        axes.plot(list(curve), list(curve.values()), color=GOOD, linewidth=0.8, alpha=0.45)
    axes.plot(list(mean), list(mean.values()), color=GOOD, linewidth=2.0, marker="o", markersize=3.5)
    first, last = min(mean), max(mean)
    start = f"{form(mean[first])}{', bare base' if first == 0 else ''}"
    axes.annotate(start, (first, mean[first]), (9, 0), textcoords="offset points", va="center")
    if last > first:
        note(axes, form(mean[last]), (last, mean[last]), GOOD, above=mean[last] < mean[first])
    axes.locator_params(axis="y", nbins=5)
    axes.yaxis.set_major_formatter(lambda value, _: form(value).replace(".0", ""))


def draw_rounds(axes: Axes, burnt: Sequence[int] = ()) -> None:
    """Count rounds in whole numbers on the lower axis, and mark there those that were burnt."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, min_n_ticks=1))
    axes.set_xlabel("Round (× burnt)" if burnt else "Round")
    floor = axes.get_xaxis_transform()
    axes.plot(list(burnt), [0] * len(burnt), "x", color=BAD, clip_on=False, transform=floor)


def note(axes: Axes, text: str, at: tuple[float, float], colour: str, above: bool) -> None:
    """Write on a line's right end, over it or under it."""
    offset, side = ((0, 6), "bottom") if above else ((0, -6), "top")
    axes.annotate(text, at, offset, textcoords="offset points", ha="right", va=side, color=colour)
