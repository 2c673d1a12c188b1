"""A chat, end to end: answers to instructions are learnt, scored, exported, written anew and reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedpeft.cli.app import app
from fedpeft.data import load_federation
from fedpeft.device import Runtime
from fedpeft.device.folders import adapter_folder, base_folder
from fedpeft.federation import simulate
from fedpeft.federation.held_out import drawn, replies_of
from fedpeft.federation.inprocess import resume
from fedpeft.scenario import parse_scenario
from fedpeft.tasks.rouge import rouge_l

from .test_resume import Stops

PEOPLE = {"ada": "we row at dawn", "bo": "coffee first", "cy": "the wind turns west"}


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of conversations and instructions, which three people answer in their own ways."""
    folder = tmp_path_factory.mktemp("chat") / "people"
    folder.mkdir()
    for name, saying in PEOPLE.items():
        lines: list[dict[str, Any]] = []
        for i in range(10):
            asked, answer = f"what now, {name}? {i}", f"{saying} {i}"
            lines.append({"prompt": asked, "response": answer})
            talk = [("user", asked), ("assistant", answer), ("user", "and then?"), ("assistant", saying)]
            lines.append({"messages": [{"role": role, "content": text} for role, text in talk]})
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return folder


@pytest.fixture(scope="module")
def tables(federation: Path) -> dict[str, Any]:
    """Return the smallest scenario of a chat."""
    return {
        "name": "chat",
        "task": {"kind": "chat"},
        "data": {"federation": str(federation), "window": 48},
        "method": {"name": "lora", "rank": 2},
        "training": {"steps": 2, "batch": 2, "learning_rate": 5e-3},
        "federation": {"rounds": 1, "cohort": 3, "minimum": 3, "panel": 3},
        "channel": {"dropout": 0.0},
        "personalization": {"people": 3, "rank": 2, "training": {"steps": 4, "batch": 2, "learning_rate": 5e-3}},
        "samples": {"prompts": [], "people": 1, "tokens": 6, "held_out": 2},
        "export": {"precision": "int4"},
    }


@pytest.fixture(scope="module")
def run(tables: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return its finished run."""
    return simulate(parse_scenario(tables), tmp_path_factory.mktemp("runs"), workers=2)


def test_replies_are_those_of_the_test_text_that_answer_something(federation: Path) -> None:
    found = replies_of(load_federation(str(federation)), "bo")
    assert {reply.wrote for reply in found} <= {f"coffee first {i}" for i in range(7, 10)} | {"coffee first"}
    assert all(reply.context[-1]["role"] == "user" for reply in found)
    longest = max(found, key=lambda reply: len(reply.context))
    assert [message["role"] for message in longest.context] == ["user", "assistant", "user"]
    some = drawn(found, 2, 0, "bo")
    assert some == drawn(found, 2, 0, "bo")
    assert len(some) == 2
    assert len(drawn(found, 99, 0, "bo")) == len(found)


def test_replies_are_written_anew_with_the_exported_base_and_adapters(run: Path) -> None:
    held_out = json.loads((run / "samples.json").read_text())["held_out"]
    assert [reply["client"] for reply in held_out] == ["ada", "ada", "bo", "bo", "cy", "cy"]
    runtime = Runtime(base_folder(run))
    for reply in held_out[:2]:
        assert set(reply["answers"]) == {"base", "global", "personal", "wrong_user"}
        for who, folder in (("base", None), ("personal", "ada")):
            adapter = None if folder is None else runtime.load(adapter_folder(run, folder))
            text = runtime.chat(reply["context"], adapter, tokens=6)
            assert reply["answers"][who] == {"text": text, "rouge_l": rouge_l(reply["wrote"], text)}
    texts = {who: [reply["answers"][who]["text"] for reply in held_out] for who in ("base", "personal")}
    assert texts["base"] != texts["personal"]


def test_its_report_counts_them(run: Path) -> None:
    ended = CliRunner().invoke(app, ["report", str(run), "--json"])
    assert ended.exit_code == 0, ended.output
    found = json.loads(ended.stdout)
    assert found["task"] == "chat"
    assert (found["rouge_l"]["replies"], found["rouge_l"]["people"]) == (6, 3)
    assert found["keystrokes_saved"]["personal"] == 0.0
    assert "What they wrote, and what models write instead" in (run / "report.html").read_text()


def test_a_run_that_is_stopped_and_resumed_in_another_engine_gives_the_same_bytes_and_shows_replies_only_if_asked(
    run: Path, tables: dict[str, Any], tmp_path: Path
) -> None:
    plain = {**tables, "samples": {"prompts": [], "people": 0, "held_out": 0}}
    with pytest.raises(KeyboardInterrupt):
        simulate(parse_scenario(plain), tmp_path, Stops("personalize"), "serial")
    (other,) = tmp_path.iterdir()
    resume(other)
    assert (other / "people.jsonl").read_text() == (run / "people.jsonl").read_text()
    assert json.loads((other / "samples.json").read_text())["held_out"] == []
    adapters = [folder / "clients" / "ada" / "personal" / "adapter_model.safetensors" for folder in (run, other)]
    assert adapters[0].read_bytes() == adapters[1].read_bytes()
