"""What the scores are called hangs on the task: a classifier has an accuracy and no keyboard."""

from pathlib import Path

import pytest

from fedpeft.report.figures import figures
from fedpeft.report.findings import facts, headline
from fedpeft.report.folder import read_record
from fedpeft.report.page import build
from fedpeft.report.plots import plots
from fedpeft.report.tables import differences, markdown, results, seeds
from fedpeft.report.wording import percent

from .synthetic import SCENARIO, Truth, draw, write_json, write_run

TASKS = {
    "next_word": ("Top-1", "Top-3", "token", True),
    "caption": ("Top-1", "Top-3", "token", False),
    "classification": ("Accuracy", "Accuracy", "text", False),
}


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def run(tmp_path: Path, truth: Truth, task: str) -> Path:
    folder = write_run(tmp_path / "r", truth)
    write_json(folder / "scenario.json", {**SCENARIO, "task": {"kind": task}})
    return folder


def test_the_tables_have_the_columns_of_the_task(run: Path, truth: Truth, task: str) -> None:
    first, quoted, unit, typed = TASKS[task]
    found = figures(read_record(run))
    assert found["task"] == task
    grid = results(found)
    assert grid.head[2:] == ("Perplexity", first, "Top-3", *(["Keystrokes saved"] if typed else []))
    assert all(len(row) == len(grid.head) for row in grid.rows)
    assert grid.rows[-1][3] == percent(truth.mean("personal", "top1"))
    head = differences(found).head
    assert head == ("Difference", f"{quoted}, points", "95% interval", f"Loss, nats/{unit}", "95% interval")
    metric = "top1" if task == "classification" else "top3"
    gain = 100 * (truth.mean("personal", metric) - truth.mean("global", metric))
    assert float(differences(found).rows[0][1].replace("−", "-")) == pytest.approx(gain, abs=0.051)
    assert any(f"nats per {unit}" in text for _, text in facts(found))


def test_the_headline_quotes_the_accuracy_that_matters(run: Path, truth: Truth, task: str) -> None:
    record = read_record(run)
    said = headline(record, figures(record))
    if task == "classification":
        assert f"name the class of a text rightly {percent(truth.mean('personal', 'top1'))} of the time" in said
    else:
        assert f"in three suggestions {percent(truth.mean('personal', 'top3'))} of the time" in said


def test_page_markdown_and_plots_speak_of_keys_only_where_something_is_typed(run: Path, task: str) -> None:
    record = read_record(run)
    typed = TASKS[task][3]
    page, text = " ".join(build(run).read_text().split()), markdown(figures(record))
    assert ("Keystrokes saved" in page) == ("Keystrokes saved" in text) == ("person typed" in page) == typed
    assert ("Accuracy" in page) == (task == "classification")
    (curve,) = (plot for plot in plots(record) if plot.name == "learning")
    assert ("Validation top-3 accuracy" in curve.wide) == (task != "classification")
    assert "Validation" in curve.wide


def test_seeds_are_tabulated_by_the_same_accuracy(tmp_path: Path) -> None:
    drawn = [draw(6, rounds=2, seed=seed) for seed in range(2)]
    for seed, truth in enumerate(drawn):
        write_run(tmp_path / "seeds" / str(seed), truth)
    write_json(tmp_path / "run.json", {"name": "study", "seeds": [0, 1], "status": "finished"})
    write_json(tmp_path / "scenario.json", {**SCENARIO, "task": {"kind": "classification"}})
    grid = seeds(figures(read_record(tmp_path)))
    assert grid is not None
    assert grid.head[3:5] == ("Accuracy, global", "personal")
    assert [row[4] for row in grid.rows[:2]] == [percent(truth.mean("personal", "top1"), 2) for truth in drawn]


@pytest.mark.parametrize("table", [{}, {"task": "odd"}, {"task": {"kind": "unheard of"}}])
def test_a_record_that_does_not_say_reads_as_next_word_prediction(tmp_path: Path, truth: Truth, table: dict) -> None:
    folder = write_run(tmp_path / "r", truth)
    write_json(folder / "scenario.json", {**SCENARIO, **table})
    assert results(figures(read_record(folder))).head[-1] == "Keystrokes saved"
