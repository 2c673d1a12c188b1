"""Bring your own people: a folder of JSONL files, one of them empty, through the whole path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedpeft.errors import RunError
from fedpeft.federation import simulate
from fedpeft.scenario import parse_scenario

SENTENCES = ("the boat is on the lake", "we row at dawn", "coffee first", "the wind turns west today")


def people(folder: Path, names: tuple[str, ...], empty: tuple[str, ...] = ()) -> Path:
    folder.mkdir()
    for name in names:
        lines = [json.dumps({"text": f"{SENTENCES[i % 4]} {name}"}) for i in range(40)]
        (folder / f"{name}.jsonl").write_text("" if name in empty else "\n".join(lines))
    return folder


def scenario(federation: Path):
    return parse_scenario(
        {
            "name": "own",
            "data": {"federation": str(federation), "window": 32},
            "method": {"name": "lora", "rank": 2},
            "training": {"steps": 1, "batch": 4},
            "federation": {"rounds": 1, "cohort": 3, "minimum": 3, "panel": 3},
            "channel": {"dropout": 0.0},
            "personalization": {"people": 3, "rank": 2, "training": {"steps": 1, "batch": 4}},
            "samples": {"prompts": ["the boat "], "people": 1, "tokens": 2},
        }
    )


def test_a_client_without_text_is_skipped_with_a_reason_and_the_others_go_on(tmp_path: Path) -> None:
    folder = people(tmp_path / "people", ("ada", "bo", "cy", "dee"), empty=("bo",))
    run = simulate(scenario(folder), tmp_path / "runs", workers=2)
    skipped = json.loads((run / "skipped.json").read_text())
    assert skipped == [{"client": "bo", "reason": "no text of their own to train on"}]
    scored = [json.loads(line)["client"] for line in (run / "people.jsonl").read_text().splitlines()]
    assert scored == ["ada", "cy", "dee"]
    assert (run / "device" / "adapters" / "ada" / "adapter.onnx_adapter").exists()


def test_a_malformed_line_stops_the_run_naming_file_and_line(tmp_path: Path) -> None:
    folder = people(tmp_path / "people", ("ada", "bo", "cy"))
    (folder / "bo.jsonl").write_text('{"text": "fine"}\n{"txt": "typo"}\n')
    with pytest.raises(RunError, match=r"bo\.jsonl:2") as stopped:
        simulate(scenario(folder), tmp_path / "runs", workers=2)
    # The reason is a message to the server: it says where, not what.
    assert "typo" not in str(stopped.value)


def test_a_client_name_that_would_leave_its_folder_is_refused(tmp_path: Path) -> None:
    from fedpeft.errors import DataError

    folder = people(tmp_path / "people", ("ada", "bo", "cy"))
    (folder / "ada.jsonl").rename(folder / "..jsonl")
    with pytest.raises(DataError, match="client name"):
        simulate(scenario(folder), tmp_path / "runs")
