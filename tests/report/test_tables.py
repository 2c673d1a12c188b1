"""The tables: the same figures in the terminal and in Markdown, with what a reader must know."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from fedpeft.report.figures import figures
from fedpeft.report.findings import cautions, headline, verdict
from fedpeft.report.folder import read_record
from fedpeft.report.record import Record
from fedpeft.report.tables import markdown, terminal
from fedpeft.report.wording import GLOSSARY, duration, moment, number, percent, signed, size

from .synthetic import RUN, Truth, draw, people_of, write_json, write_run


def shown(found: dict, width: int = 100) -> str:
    console = Console(width=width, file=StringIO(), color_system=None)
    console.print(terminal(found, "keyboard", width=width))
    return console.file.getvalue()


def test_the_terminal_shows_every_model_within_100_columns(run: Path, truth: Truth) -> None:
    text = shown(figures(read_record(run)))
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    for control, what in GLOSSARY.items():
        row = next(
            line for line in text.splitlines() if line.strip().startswith(control.replace("_", " ")) and what in line
        )
        assert percent(truth.mean(control, "top3")) in row
    assert "personal − wrong user" in text
    assert "1 round was burnt" in text


def test_no_number_is_broken_on_a_terminal_of_80_columns(run: Path) -> None:
    found = figures(read_record(run))
    wide, narrow = shown(found), shown(found, width=80)
    assert max(map(len, narrow.splitlines())) <= 80
    assert "the frozen model alone" not in narrow
    for difference in ("personal − wrong user", "global − base"):
        row = next(line for line in wide.splitlines() if difference in line).split()
        assert next(line for line in narrow.splitlines() if difference in line).split() == row


def test_markdown_has_the_same_numbers_as_the_terminal(run: Path) -> None:
    found = figures(read_record(run))
    text, lines = shown(found), markdown(found).splitlines()
    cells = [
        c.strip(" *")
        for line in lines
        if line.startswith("| ") and ":--" not in line
        for c in line.strip("|").split(" | ")
    ]
    assert len(cells) == 6 * 6 + 5 * 5
    assert all(cell in text for cell in cells)
    assert [line.count("|") for line in lines if line.startswith("|")] == [7] * 7 + [6] * 6


def test_a_study_shows_its_seeds(tmp_path: Path) -> None:
    for seed in (3, 5):
        write_run(tmp_path / "seeds" / str(seed), draw(30, rounds=2, seed=seed))
    write_json(tmp_path / "run.json", {"name": "study", "seeds": [3, 5]})
    text = markdown(figures(read_record(tmp_path)))
    assert "| 3 |" in text and "| 5 |" in text and "| mean |" in text and "| SD |" in text
    assert "each the mean of 2 seeds" in text
    assert "a single seed leaves" in text


def test_a_run_without_people_still_has_tables_of_its_rounds(run: Path) -> None:
    (run / "people.jsonl").unlink()
    record = read_record(run)
    found = figures(record)
    assert "Bytes per client and round" in shown(found)
    assert "Perplexity" not in markdown(found)
    assert headline(record, found).startswith("After 12 rounds the global adapter’s validation perplexity is")
    assert "person" not in verdict(found)


def test_what_is_not_measurable_is_said() -> None:
    truth = draw(30)
    for metric in ("loss", "top3"):
        truth.scores["personal"][metric][:] = truth.scores["wrong_user"][metric]

    found = figures(Record(RUN, people=people_of(truth)))
    said = cautions(found, "interrupted")
    assert said[0] == "The run is interrupted: these are its figures so far."
    assert any("Another person’s adapter does as well" in each for each in said)
    assert "Personal adapters are worse than the global one." in said
    assert not any("bare base" in each for each in said)


def test_what_is_worse_is_called_worse() -> None:
    truth = draw(30)
    for metric in ("loss", "top3"):
        truth.scores["local"][metric] = truth.scores["personal"][metric] * 0.9
    said = cautions(figures(Record(RUN, people=people_of(truth))), "finished")
    assert said == ["Training alone, without the federation, does better."]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (signed(-0.0004), "0.0"), (signed(-0.3), "−0.3"), (signed(0.25, 2), "+0.25"), (signed(None), "–"),
        (size(999), "999 bytes"), (size(8_649_216), "8.6 MB"), (size(1.2e9), "1.2 GB"),
        (duration(59.94), "59.9 s"), (duration(192.4), "3 min 12 s"), (duration(7260), "2 h 1 min"),
        (number(1e300), "1.0e+300"), (number(1234.5), "1,234.5"), (percent(0.3942), "39.4%"),
        (moment("2026-03-02T10:15:00+02:00"), "2026-03-02 08:15 UTC"), (moment("yesterday"), "yesterday"),
    ],
)  # fmt: skip
def test_numbers_are_written_as_people_read_them(written: str, expected: str) -> None:
    assert written == expected
