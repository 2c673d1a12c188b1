"""The figures of a run, each with a title that says what it shows."""

from __future__ import annotations

from math import expm1
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from fedpeft.report.canvas import BAD, GOOD, INK, MUTED, OTHER, PAPER, Plot, panel, plot
from fedpeft.report.curves import (
    accuracy_at,
    curves_of,
    draw_curves,
    draw_rounds,
    mean_curve,
    note,
    perplexity_at,
)
from fedpeft.report.record import Control, Person, Record
from fedpeft.report.wording import counted, number, size, terms_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LEGEND = {"handlelength": 1.2, "borderpad": 0, "borderaxespad": 0, "labelspacing": 0.3, "handletextpad": 0.5}
_FEDERATED = "global against base"
_BARS = 200  # more people than this are drawn as one outline: bars would be thinner than a pixel


def plots(record: Record) -> list[Plot]:
    """Draw every figure that the record has numbers for."""
    drawn = (gain_per_person(record), learning_curve(record), bytes_per_round(record))
    return [each for each in drawn if each is not None]


def gain_per_person(record: Record) -> Plot | None:
    """Draw what the personal adapter changed for each person, from the largest gain to the largest harm."""
    if not record.people:
        return None
    people = sorted(record.people, key=lambda person: (_change(person, "personal", "global"), person.client))
    personal = np.array([_change(person, "personal", "global") for person in people])
    federated = np.array([_change(person, "global", "base") for person in people])
    better, worse = int((personal < 0).sum()), int((personal > 0).sum())
    title = f"Personal adapters help {better:,} of {counted(len(people), 'person', 'people')} and harm {worse:,}"

    def paint(figure: Figure, narrow: bool) -> None:
        legend = 54 if narrow else 24
        box = (0, legend, 350, 360 - legend) if narrow else (0, legend, 720, 330 - legend)
        axes = panel(figure, box, "Change in test perplexity, lower is better", below=26)
        places = np.arange(len(personal))
        for keep, colour, label in (
            (personal <= 0, GOOD, "personal against global"),
            (personal > 0, BAD, "the same, where it harms"),
        ):
            values = np.where(keep, personal, 0.0)
            if len(values) > _BARS:
                axes.stairs(values, np.arange(len(values) + 1) - 0.5, fill=True, color=colour, label=label)
            elif keep.any():
                axes.bar(places[keep], values[keep], width=0.74, color=colour, label=label)
        width = 4.0 if len(people) <= _BARS else 1.5
        (circles,) = axes.plot(places, federated, "o", color=MUTED, markersize=width, label=_FEDERATED)
        circles.set_markerfacecolor(PAPER)
        axes.axhline(0, color=INK, linewidth=1.0)
        axes.set_xlim(-0.8, len(personal) - 0.2)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        axes.set_xlabel(f"{counted(len(personal), 'person', 'people')}, from most helped to most harmed")
        axes.yaxis.set_major_formatter(lambda value, _: _signed_percent(value))
        handles, labels = axes.get_legend_handles_labels()
        order = sorted(range(len(labels)), key=lambda i: labels[i] == _FEDERATED)  # bars first
        figure.legend(
            [handles[i] for i in order],
            [labels[i] for i in order],
            loc="upper left",
            bbox_to_anchor=(0, 1),
            ncols=1 if narrow else 3,
            **_LEGEND,
        )

    return plot("gain", title, (330, 360), paint)


def learning_curve(record: Record) -> Plot | None:
    """Draw validation perplexity and accuracy by round, from the bare base on."""
    terms = terms_of(record.task)
    accuracy = "accuracy" if terms.metric == "top1" else "top-3 accuracy"
    panels = (
        ("Validation perplexity", curves_of(record, perplexity_at), ""),
        (f"Validation {accuracy}", curves_of(record, accuracy_at(terms.metric)), "%"),
    )
    mean = mean_curve(panels[0][1])
    if not mean:
        return None
    last = max(mean)
    if last == 0:
        title = f"The bare base has a validation perplexity of {number(mean[0])}"
    else:
        title = (
            f"{counted(last, 'round takes', 'rounds take')} validation perplexity "
            f"from {number(mean[min(mean)])} to {number(mean[last])}"
        )
    burnt = sorted({r.round for history in record.histories for r in history if r.burnt})

    def paint(figure: Figure, narrow: bool) -> None:
        boxes = ((0, 0, 350, 230), (0, 240, 350, 230)) if narrow else ((0, 0, 350, 260), (370, 0, 350, 260))
        for box, (label, curves, unit) in zip(boxes, panels, strict=True):
            axes = panel(figure, box, label, right=44)
            draw_curves(axes, curves, unit)
            draw_rounds(axes, burnt)

    return plot("learning", title, (260, 470), paint)


def bytes_per_round(record: Record) -> Plot | None:
    """Draw what a client sends and receives in each round beside the size of the base, on a log scale."""
    up = mean_curve(curves_of(record, lambda r: r.bytes_up))
    down = mean_curve(curves_of(record, lambda r: r.bytes_down))
    if not up or not down:
        return None
    base = record.run.base.float32_bytes
    moved = fmean(up.values()) + fmean(down.values())
    title = f"A round moves {size(moved)} per client; the base alone is {size(base)}"

    def paint(figure: Figure, narrow: bool) -> None:
        axes = panel(figure, (0, 0, 350 if narrow else 720, 260), "Bytes per client, logarithmic")
        axes.set_yscale("log")
        upper_first = fmean(up.values()) >= fmean(down.values())
        for curve, label, colour, marker, above in (
            (up, "sent by a client", GOOD, "o", upper_first),
            (down, "sent to a client", OTHER, "s", not upper_first),
        ):
            rounds = sorted(curve)
            axes.plot(rounds, [curve[r] for r in rounds], color=colour, marker=marker, markersize=3.5)
            text = f"{label}: {size(fmean(curve.values()))} on average"
            note(axes, text, (max(curve), curve[max(curve)]), colour, above=above, side="right")
        axes.axhline(base, color=INK, linewidth=1.2, linestyle=(0, (5, 3)))
        note(axes, f"the whole base in float32: {size(base)}", (max(up), base), INK, above=True, side="right")
        lowest, highest = min(*up.values(), *down.values()), max(base, *up.values(), *down.values())
        axes.set_ylim(max(1.0, lowest) / 3, highest * 3)
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(lambda value, _: size(value).replace(".0 ", " "))
        draw_rounds(axes)

    return plot("bytes", title, (260, 260), paint)


def _change(person: Person, new: Control, old: Control) -> float:
    """Return the relative change of a person's perplexity."""
    return expm1(min(person.test[new].loss - person.test[old].loss, 700.0))


def _signed_percent(value: float) -> str:
    return "0" if abs(value) < 1e-9 else f"{'+' if value > 0 else '−'}{abs(100 * value):g}%"
