"""Where names go beside points: the nearest free place, with a thin line when it is not next to the point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi, sin
from typing import TYPE_CHECKING, Any

from fedpeft.report.canvas import MUTED, PAPER

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ANGLES = [0.0, pi, pi / 2, -pi / 2, *(s * pi / 4 + t for s in (1, -1) for t in (0.0, pi / 2))]
_RADII = (7, 15, 24, 34, 46, 60, 76, 94)
_PAD, _DOT = 1.5, 4.5

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Label:
    """A name at a point, in data coordinates."""

    text: str
    x: float
    y: float
    style: dict[str, Any]


def place(axes: Axes, labels: Sequence[Label]) -> None:
    """Write labels so that none lies on another, on a point, or outside the axes; the first have the first choice."""
    figure = axes.figure
    points = [tuple(axes.transData.transform((label.x, label.y))) for label in labels]
    frame = axes.get_window_extent()
    limits = (frame.x0, frame.y0, frame.x1, frame.y1)
    scale = figure.dpi / 72
    dot = _DOT * scale
    taken: list[Box] = [(x - dot, y - dot, x + dot, y + dot) for x, y in points]
    for label, (x, y) in zip(labels, points, strict=True):
        text = axes.annotate(
            label.text, (label.x, label.y), (0, 0), textcoords="offset points", va="center", ha="center", **label.style
        )
        # What lies below does not strike through the letters.
        text.set_bbox({"facecolor": PAPER, "edgecolor": "none", "pad": 0.4})
        extent = text.get_window_extent()
        half = (extent.width / 2 + _PAD, extent.height / 2)
        box, offset, near = _free((x, y), half, taken, limits, scale)
        taken.append(box)
        text.set_position(offset)
        if not near:
            axes.annotate(
                "",
                (label.x, label.y),
                offset,
                textcoords="offset points",
                arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.5, "shrinkA": half[1], "shrinkB": 3},
            )


def _free(
    point: tuple[float, float], half: tuple[float, float], taken: list[Box], limits: Box, scale: float
) -> tuple[Box, tuple[float, float], bool]:
    """Return the first free box around a point, its offset in points, and whether it is next to the point."""
    chosen: tuple[Box, tuple[float, float], bool] | None = None
    for radius in _RADII:
        for angle in _ANGLES:
            # The box begins at the radius, whichever side it is on.
            dx = cos(angle) * radius * scale + half[0] * _sign(cos(angle))
            dy = sin(angle) * radius * scale + half[1] * _sign(sin(angle)) * 0.6
            x, y = point[0] + dx, point[1] + dy
            box = (x - half[0], y - half[1], x + half[0], y + half[1])
            inside = box[0] >= limits[0] and box[1] >= limits[1] and box[2] <= limits[2] and box[3] <= limits[3]
            found = (box, (dx / scale, dy / scale), radius == _RADII[0])
            chosen = chosen or found
            if inside and not any(_overlap(box, other) for other in taken):
                return found
    assert chosen is not None  # noqa: S101 - there is at least one place
    return chosen


def _sign(value: float) -> float:
    return 0.0 if abs(value) < 0.1 else (1.0 if value > 0 else -1.0)


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
