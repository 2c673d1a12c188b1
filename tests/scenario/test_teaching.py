"""What a scenario may say of teachers, and that all clients have the same file."""

import shutil
from pathlib import Path

import pytest
import torch

from fedpeft.errors import ScenarioError
from fedpeft.scenario import Scenario
from fedpeft.scenario.load import parse_scenario
from fedpeft.training.shared_logits import Origin, SharedLogits


@pytest.fixture
def file(tmp_path) -> Path:
    """Return a file of shared logits made at temperature 1."""
    half = torch.full((2, 7, 1), 0.5).log().half()
    text = torch.zeros(2, 8, dtype=torch.int32)
    pieces = torch.ones(2, 7, 1, dtype=torch.int32)
    SharedLogits(text, pieces, half, half[..., 0].clone(), Origin("t", "", "v", 1.0)).save(tmp_path / "l.safetensors")
    return tmp_path / "l.safetensors"


def scenario(taught: dict, table: str = "training", **tables: dict) -> Scenario:
    training = {"steps": 1, "distillation": taught, **tables.pop("training", {})}
    given = {"training": training} if table == "training" else {"personalization": {"training": training}}
    return parse_scenario({"name": "taught", **given, **tables})


@pytest.mark.parametrize("table", ["training", "personalization"])
def test_the_digest_is_over_what_the_file_says_wherever_it_lies(file, tmp_path, table):
    moved = shutil.copy(file, tmp_path / "moved.safetensors")
    here = scenario({"logits": str(file)}, table)
    assert here.digest == scenario({"logits": str(moved)}, table).digest
    rest = torch.full((2, 7), 0.5).log().half()
    pieces = torch.full((2, 7, 1), 2, dtype=torch.int32)
    other = SharedLogits(
        torch.zeros(2, 8, dtype=torch.int32), pieces, rest[..., None].clone(), rest, Origin("t", "", "v", 1.0)
    )
    other.save(moved)
    assert here.digest != scenario({"logits": str(moved)}, table).digest


def test_a_path_is_made_absolute_so_that_every_worker_finds_it(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    assert scenario({"logits": file.name}).training.distillation.logits == str(file)


def test_chunks_go_with_shared_logits_and_not_with_a_live_teacher(file):
    scenario({"logits": str(file)}, training={"chunk": 16})
    with pytest.raises(ScenarioError, match=r"training.chunk: found 16, expected no distillation; a live teacher"):
        scenario({}, training={"chunk": 16})


def test_teachers_who_cannot_be_asked_are_refused(file, tmp_path):
    with pytest.raises(
        ScenarioError, match=r"training.distillation.teacher: found 'keyboard', expected ''; logits say"
    ):
        scenario({"logits": str(file), "teacher": "keyboard"})
    with pytest.raises(
        ScenarioError, match=r"distillation.temperature: found 3.0, expected 1.0, as in .*l.safetensors"
    ):
        scenario({"logits": str(file), "temperature": 3.0})
    scenario({"logits": str(file), "temperature": 1.0})
    with pytest.raises(ScenarioError, match=r"training.distillation.logits: found .*none', expected a file that"):
        scenario({"logits": str(tmp_path / "none")})
    captions = {"task": {"kind": "caption"}, "base": {"name": "tiny-llava"}, "data": {"federation": "shapes"}}
    with pytest.raises(ScenarioError, match=r"distillation.logits: found 'caption', expected task.kind = 'next_word'"):
        scenario({"logits": str(file)}, **captions)


def test_the_device_is_no_part_of_what_clients_agree_on():
    alike = {parse_scenario({"name": "x", "base": {"device": d}}).digest for d in ("cpu", "auto", "cuda:1")}
    assert len(alike) == 1
    with pytest.raises(ScenarioError, match=r"base.device: found 'gpu'"):
        parse_scenario({"name": "x", "base": {"device": "gpu"}})
