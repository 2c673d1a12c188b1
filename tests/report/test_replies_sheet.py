"""Replies written anew: their figures against numpy, and the sheet that shows them."""

import json
from pathlib import Path

import numpy as np
import pytest

from fedpeft.report.bootstrap import mean_intervals
from fedpeft.report.figures import figures
from fedpeft.report.folder import read_record
from fedpeft.report.page import build
from fedpeft.report.replies import sheet
from fedpeft.report.tables import markdown

from .synthetic import edit_json

HOSTILE = "<script>alert(1)</script> & <img src=x>"
PEOPLE = {"user-07": 3, "user-21": 1, "user-30": 2}
CONTROLS = ("base", "global", "personal", "wrong_user")


@pytest.fixture
def chat(run: Path) -> Path:
    """A run with replies of three people, two of whom are shown."""
    rng = np.random.default_rng(2)
    replies = [
        {
            "client": client,
            "context": [{"role": "user", "content": HOSTILE}, {"role": "assistant", "content": "earlier"}],
            "wrote": f"{client} wrote {HOSTILE}",
            "answers": {who: {"text": f"{who} {HOSTILE}", "rouge_l": round(rng.random(), 3)} for who in CONTROLS},
        }
        for client, count in PEOPLE.items()
        for _ in range(count)
    ]
    edit_json(run / "samples.json", held_out=replies)
    edit_json(run / "scenario.json", task={"kind": "chat"})
    return run


def test_means_are_over_people_each_the_mean_of_their_replies(chat):
    replies = json.loads((chat / "samples.json").read_text())["held_out"]
    found = figures(read_record(chat))["rouge_l"]
    rows = np.array(
        [
            [np.mean([r["answers"][who]["rouge_l"] for r in replies if r["client"] == client]) for who in CONTROLS]
            for client in sorted(PEOPLE)
        ]
    )
    assert (found["replies"], found["people"]) == (6, 3)
    assert [found["mean"][who] for who in CONTROLS] == pytest.approx(rows.mean(axis=0))
    assert found["mean"]["local"] is None
    gain = rows[:, [2]] - rows[:, [1]]
    (ends,) = mean_intervals(gain)
    assert found["personal-global"] == pytest.approx({"mean": gain.mean(), "low": ends[0], "high": ends[1]})


def test_perplexity_accuracy_and_rouge_stand_in_one_table(chat):
    text = markdown(figures(read_record(chat)))
    head = text.splitlines()[0]
    assert [name in head for name in ("Perplexity", "Top-1", "ROUGE-L", "Keystrokes")] == [True, True, True, False]
    assert "Replies written anew: 6 replies of 3 people; ROUGE-L, personal − global: " in text


def test_the_sheet_shows_the_replies_of_those_whose_prompts_are_shown_as_text(chat):
    shown = sheet(read_record(chat).samples)
    assert [each.client for each in shown] == ["user-07"] * 3 + ["user-21"]
    assert shown[0].context == (("you", HOSTILE), ("me", "earlier"))
    assert [name for name, _, _ in shown[0].answers] == ["base", "global", "personal"]
    page = build(chat).read_text(encoding="utf-8")
    assert "What they wrote, and what models write instead" in page
    assert "own held-out text" in page
    assert "user-30 wrote" not in page
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 4 * (1 + 1 + 3)


def test_a_run_without_such_replies_has_no_sheet_and_no_figures(run):
    record = read_record(run)
    assert figures(record)["rouge_l"] is None
    assert sheet(record.samples) == []
    assert "What they wrote" not in build(run).read_text(encoding="utf-8")
    assert "ROUGE" not in markdown(figures(record))
