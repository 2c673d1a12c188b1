"""A comparison shown: tables, sentences, the drawing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fedpeft.compare import Comparison, Failure
from fedpeft.compare.figure import draw
from fedpeft.compare.labels import Label, place
from fedpeft.compare.table import described, markdown, reached
from tests.compare.conftest import row

Make = Callable[..., Comparison]


@pytest.fixture
def three(by_hand: Make) -> Comparison:
    made = by_hand([row("full", 0.50, 7_000_000), row("lora", 0.49, 300_000), row("vera", 0.43, 400_000)])
    gone = Failure(method="oft", stage="federate", kind="failed", reason="the mean is worse")
    return made.model_copy(update={"failures": [gone]})


def test_rows_are_ordered_by_quality_and_the_front_is_marked(three: Comparison) -> None:
    names = [cells[0] for cells in reached(three).rows]
    assert names == ["full •", "lora •", "vera", "base"]


def test_markdown_says_what_was_done_and_what_failed(three: Comparison) -> None:
    text = markdown(three, "by-hand.svg")
    assert "| lora • | linear | 150,000 |" in text
    assert "98.0% | 90% | 90%" in text  # attainment and gain shares of lora
    assert "oft failed at federate: the mean is worse" in text
    assert "![Quality against bytes sent](by-hand.svg)" in text
    widths = {line.count("|") for line in text.split("\n\n")[2].splitlines()}
    assert len(widths) == 1


def test_each_finished_method_has_its_line(three: Comparison) -> None:
    lines = described(three)
    assert set(lines) == {"full", "lora", "vera", "oft"}


def test_the_drawing_names_every_method_and_is_the_same_each_time(three: Comparison, tmp_path: Path) -> None:
    draw(three, [tmp_path / "a.svg", tmp_path / "b.svg", tmp_path / "c.png"])
    svg = (tmp_path / "a.svg").read_text()
    assert all(re.search(rf">\s*{name}\s*<", svg) for name in ("full", "lora", "vera"))
    assert svg == (tmp_path / "b.svg").read_text()
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_labels_of_points_that_lie_together_do_not_overlap() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    axes.set_xlim(0, 10)
    axes.set_ylim(0, 10)
    labels = [Label(f"method_{i}", 5 + 0.02 * (i % 5), 5 + 0.05 * i, {"fontsize": 10}) for i in range(18)]
    place(axes, labels)
    boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
    assert len(boxes) == 18
    for i, one in enumerate(boxes):
        for other in boxes[i + 1 :]:
            assert not one.overlaps(other)
