"""Drawing with matplotlib to SVG that takes its colours and font from the page around it.

Colours are roles. A role is drawn in its colour for light paper and then written as a CSS variable with that
colour as its default, so that one drawing serves light and dark pages and still opens as a file of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Blue, orange and purple keep apart for every common kind of colour blindness (Okabe and Ito 2008).
INK, MUTED, RULE, PAPER = "#1d2733", "#5b6876", "#d8dee6", "#fffffe"
GOOD, BAD, OTHER = "#0067a5", "#c24e00", "#9a3d7a"
_ROLES = {PAPER: "paper", INK: "ink", MUTED: "muted", RULE: "rule", GOOD: "good", BAD: "bad", OTHER: "other"}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: sharp, selectable, read aloud
    "svg.hashsalt": "fedpeft",
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, so that every machine measures alike
    "font.size": 11.0,
    "axes.unicode_minus": True,
    "text.color": INK,
    "text.parse_math": False,
    "axes.labelcolor": MUTED,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 11.0,
}
_UNITS = 72  # of an SVG of matplotlib, to the inch; one is meant to be a pixel of the page
_UNDATED = {"Date": None, "Creator": None, "Format": None, "Type": None}


@dataclass(frozen=True, slots=True)
class Plot:
    """One figure in two layouts.

    Parameters
    ----------
    name : str
        A short identifier, unique on a page.
    title : str
        What the figure shows, as a sentence.
    wide, narrow : str
        SVG elements, for 720 and for 350 pixels.
    """

    name: str
    title: str
    wide: str
    narrow: str


def plot(name: str, title: str, heights: tuple[int, int], paint: Callable[[Figure, bool], None]) -> Plot:
    """Draw a figure in both layouts.

    Parameters
    ----------
    name, title : str
        As in :class:`Plot`.
    heights : pair of int
        Of the wide and of the narrow layout, in pixels.
    paint : callable
        Puts axes and marks on an empty figure; its second argument says whether the layout is narrow.
    """
    wide, narrow = heights
    return Plot(
        name,
        title,
        _svg(f"{name}-wide", title, (720, wide), lambda figure: paint(figure, False)),
        _svg(f"{name}-narrow", title, (350, narrow), lambda figure: paint(figure, True)),
    )


def panel(figure: Figure, box: tuple[int, int, int, int], label: str, below: int = 42, right: int = 8) -> Axes:
    """Add axes that keep of the usual frame only what helps reading.

    Parameters
    ----------
    figure : Figure
    box : tuple of int
        Left, top, width and height in pixels, with tick labels, the label above and the one below.
    label : str
        What is measured, in which unit; it stands upright at the top left, where the eye begins.
    below : int
        Pixels of the box for tick labels and label under the axes.
    right : int
        Pixels of the box for what is written past their right end.
    """
    left, top, width, height = box
    whole_width, whole_height = figure.get_size_inches() * _UNITS
    inner = (left + 50, whole_height - top - height + below, width - 50 - right, height - 30 - below)
    size = (whole_width, whole_height, whole_width, whole_height)
    axes = figure.add_axes(tuple(pixels / whole for pixels, whole in zip(inner, size, strict=True)))
    figure.text(left / whole_width, 1 - top / whole_height, label, color=MUTED, va="top")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=6)
    return axes


def save(path: Path, pixels: tuple[int, int], paint: Callable[[Figure], None]) -> None:
    """Draw a figure into a file of its own, on white; ``.svg`` or ``.png`` by its name."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(pixels[0] / _UNITS, pixels[1] / _UNITS), facecolor="white")
        FigureCanvasAgg(figure)
        paint(figure)
        undated = _UNDATED if path.suffix == ".svg" else None
        figure.savefig(path, dpi=2 * _UNITS, metadata=undated)


def _svg(name: str, title: str, pixels: tuple[int, int], paint: Callable[[Figure], None]) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the reader's own matplotlibrc says
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(pixels[0] / _UNITS, pixels[1] / _UNITS))
        FigureCanvasSVG(figure)
        paint(figure)
        buffer = StringIO()
        figure.savefig(buffer, format="svg", metadata=_UNDATED, transparent=True)
    return _inline(buffer.getvalue(), name, title, pixels)


def _inline(text: str, name: str, title: str, pixels: tuple[int, int]) -> str:
    """Make a stand-alone SVG file an element that can share a page with others."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<svg[^>]*>", "", text, count=1)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    used = set(re.findall(r"#([\w.-]+)", text))
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'(xlink:)?href="#|url\(#', lambda m: f"{m[0].removeprefix('xlink:')}{name}-", text)
    text = text.replace("font-family: 'DejaVu Sans'", "font-family: inherit")
    for colour, role in _ROLES.items():
        text = text.replace(colour, f"var(--{role}, {colour})")
    text = re.sub(r"\s*\n\s*", "\n", text).replace(" \n", " ")
    width, height = pixels
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-labelledby="{name}-title" font-family="system-ui, sans-serif" stroke-linejoin="round">'
        f'<title id="{name}-title">{escape(title)}</title>{text.strip()}'
    )
