"""What an adapter learnt over rounded weights belongs to the rounded weights: merged into them, it does what it did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from torch import nn
from transformers import AutoModelForCausalLM

from fedpeft.adapters import Adapter
from fedpeft.adapters.merge import merge, mismatch
from fedpeft.base import Base, load_base
from fedpeft.base.dequantize import dequantize, load_dequantized
from fedpeft.base.held import held_as, name_of
from fedpeft.base.quantize import MARKS
from fedpeft.cli import main
from fedpeft.data.windows import Windows
from fedpeft.errors import BaseError
from fedpeft.methods import Attached, parse_method
from fedpeft.methods.attached import SHARED
from fedpeft.tasks import open_task
from fedpeft.tasks.next_word import NextWord
from fedpeft.training import Training, train
from fedpeft.training.evaluate import mean_loss

CLIENT = "user-03"
IDS = torch.tensor([[1, 3, 300, 301, 302, 2, 7, 9, 400, 17, 18, 2]])


@pytest.mark.parametrize("name", ["nf4", "int8", "nf4:float32"])
def test_dequantized_weights_are_those_that_the_base_computes_with(home, name):
    dtype, precision = held_as(name, "bfloat16")
    packed, plain = load_base("keyboard", dtype, precision=precision), load_dequantized("keyboard", (dtype, precision))
    assert plain.fingerprint == packed.fingerprint
    assert {type(m) for m in plain.model.modules()} & {Linear4bit, Linear8bitLt} == set()
    layers = {n: m for n, m in packed.model.named_modules() if isinstance(m, Linear4bit | Linear8bitLt)}
    for at, layer in list(layers.items())[:3]:
        found = plain.model.get_submodule(at)
        assert type(found) is nn.Linear and found.weight.dtype == torch.float32
        if precision == "nf4":  # a product with the unit matrix is the weight that the layer holds
            unit = torch.eye(layer.in_features, dtype=packed.dtype)
            assert torch.equal(layer(unit).T.float(), found.weight)
        else:  # rows of 255 levels
            scales = found.weight.abs().amax(dim=1, keepdim=True) / 127
            assert (found.weight / scales - (found.weight / scales).round()).abs().max() < 1e-3
    assert plain.precision == "full"
    assert not any(getattr(plain.model, mark, False) for mark in MARKS)


def test_dequantizing_after_an_evaluation_gives_the_same(home):
    used, fresh = (load_base("keyboard", "bfloat16", precision="int8").model for _ in range(2))
    with torch.no_grad():
        used(IDS)
    dequantize(used, torch.float32)
    dequantize(fresh, torch.float32)
    for one, other in zip(used.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Adapter, float, Windows]:
    """Train an adapter over a base in NF4: the adapter, its loss there, and the text that it was trained on."""
    torch.set_num_threads(1)
    task = open_task("next_word", "keyboard", "keyboard", "bfloat16", "nf4", 32, 32)
    attached, own = Attached(task.base, parse_method({"name": "qlora"}), None, seed=0), task.splits(CLIENT)
    train(attached, SHARED, task, own.train, Training(steps=20, batch=4, learning_rate=3e-3), seed=0)
    return attached.adapter(SHARED, attached.read(SHARED)), mean_loss(attached, task, own.train), own.train


def loss(base: Base, text: Windows) -> float:
    task = NextWord(base, None, 32)
    attached = Attached(base, parse_method({"name": "bitfit"}), None, seed=0)
    attached.activate()
    return mean_loss(attached, task, text)


def test_merged_into_dequantized_weights_an_adapter_has_the_loss_it_was_trained_to(home, learnt):
    adapter, trained, text = learnt
    rounded, published = load_dequantized("keyboard", ("bfloat16", "nf4")), load_base("keyboard", "float32")
    far = mismatch(adapter, rounded.model, published.model)
    assert far > 0.5  # rounding moved the weights by as much as training did
    assert mismatch(adapter, rounded.model, rounded.model) == 0.0
    for base in (rounded, published):
        merge(base.model, adapter)
    exact, other = abs(loss(rounded, text) - trained), abs(loss(published, text) - trained)
    print(f"{trained:.4f} as trained; off by {exact:.4f} dequantized, by {other:.4f} published; mismatch {far:.2f}")
    assert exact < 0.002
    assert other > 3 * exact


def test_the_command_merges_into_what_was_trained_on(home, learnt, tmp_path: Path, capsys):
    learnt[0].save(tmp_path / "mine")
    arguments = ["adapters", "merge", str(tmp_path / "mine"), "--base", "keyboard", "--trained-on", "nf4"]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--out", str(tmp_path / "model"), "--json"])
    assert ended.value.code == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["trained_on"], facts["dtype"], facts["lost_to_rounding"]) == ("nf4:bfloat16", "float32", 0.0)
    assert facts["error_into_published"] > 0.5
    expected = load_dequantized("keyboard", ("bfloat16", "nf4")).model
    merge(expected, learnt[0])
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert found.dtype == torch.float32
    with torch.no_grad():
        assert torch.equal(found(IDS).logits, expected(IDS).logits)


def test_a_run_that_trained_on_quantized_bases_must_be_told_which_is_meant(home, learnt, tmp_path: Path, capsys):
    run = tmp_path / "runs" / "mixed"
    learnt[0].save(run / "clients" / "anna" / "personal")
    devices = [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.5, "precision": "nf4", "dtype": "float32"}]
    (run / "scenario.json").write_text(json.dumps({"name": "mixed", "devices": devices}))
    arguments = ["adapters", "merge", "anna", "--run", str(run), "--base", "keyboard", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    expected = "--trained-on: found None, expected one of bfloat16, nf4:float32; so people of this run held the base"
    assert expected in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "held", "short"),
    [
        ("float32", ("float32", "full"), "float32"),
        ("full", ("bfloat16", "full"), "bfloat16"),
        ("nf4", ("bfloat16", "nf4"), "nf4"),
        ("nf4:bfloat16", ("bfloat16", "nf4"), "nf4"),
        ("int8:float32", ("float32", "int8"), "int8:float32"),
    ],
)
def test_a_way_of_holding_a_base_has_one_name(name, held, short):
    assert held_as(name, "bfloat16") == held
    assert name_of(*held, usual="bfloat16") == short
    assert held_as(short, "bfloat16") == held


@pytest.mark.parametrize("name", ["int4", "nf4:", "nf4:int8", "nf5", "float32:nf4", ""])
def test_other_names_are_refused(name):
    with pytest.raises(BaseError, match=f"precision: found '{name}', expected a known one"):
        held_as(name, "bfloat16")
