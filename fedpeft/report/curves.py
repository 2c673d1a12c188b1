"""Quantities by round: read from a record, averaged over seeds, drawn with their ends written out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import floor, log10
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from fedpeft.report.canvas import BAD, GOOD, INK
from fedpeft.report.record import Record, Round
from fedpeft.report.wording import number

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


def accuracy_at(metric: Literal["top1", "top3"]) -> Callable[[Round], float | None]:
    """Return a function from a round to the global adapter's validation accuracy after it, in percent."""
    return lambda r: 100 * float(getattr(r.validation, metric)) if r.validation else None


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Average over seeds, in the rounds that every seed has."""
    shared = set.intersection(*(set(curve) for curve in curves))
    return {r: fmean(curve[r] for curve in curves) for r in sorted(shared)}


def draw_curves(axes: Axes, curves: Sequence[Curve], unit: str) -> None:
    """Draw the mean, each seed thinly behind it, and write out where it begins and ends."""
    from matplotlib.ticker import MaxNLocator

    mean = mean_curve(curves)
    for curve in curves if len(curves) > 1 else ():
        axes.plot(list(curve), list(curve.values()), color=GOOD, linewidth=0.8, alpha=0.45)
    axes.plot(list(mean), list(mean.values()), color=GOOD, linewidth=2.0, marker="o", markersize=3.5)
    first, last = min(mean), max(mean)
    falls = mean[last] < mean[first]
    start = f"{number(mean[first])}{unit}{', bare base' if first == 0 else ''}"
    note(axes, start, (first, mean[first]), INK, above=falls, side="left")
    if last > first:
        axes.annotate(
            f"{number(mean[last])}{unit}", (last, mean[last]), (7, 0),
            textcoords="offset points", va="center", color=GOOD,
        )  # fmt: skip
    axes.margins(y=0.15)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, min_n_ticks=3, steps=[1, 2, 4, 5, 10]))
    one, other, *_ = axes.get_yticks()
    digits = max(0, -floor(log10(other - one) + 1e-9))
    axes.yaxis.set_major_formatter(lambda value, _: f"{number(value, digits)}{unit}")


def draw_rounds(axes: Axes, burnt: Sequence[int] = ()) -> None:
    """Count rounds in whole numbers on the lower axis, and mark there those that were burnt."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, min_n_ticks=1))
    axes.set_xlabel("Round (× burnt)" if burnt else "Round")
    floor = axes.get_xaxis_transform()
    axes.plot(list(burnt), [0] * len(burnt), "x", color=BAD, clip_on=False, transform=floor)


def note(
    axes: Axes,
    text: str,
    at: tuple[float, float],
    colour: str,
    *,
    above: bool,
    side: Literal["left", "right"],
) -> None:
    """Write over or under a point, beginning or ending there."""
    offset = (0, 6) if above else (0, -6)
    vertical: Literal["bottom", "top"] = "bottom" if above else "top"
    axes.annotate(text, at, offset, textcoords="offset points", ha=side, va=vertical, color=colour)
