"""One model, many adapters: a switch is exact and costs nothing that grows with them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import nn

from fedpeft.adapters import Adapter
from fedpeft.adapters.switch import Switcher
from fedpeft.bench.switch import measure_switch
from fedpeft.errors import AdapterError

from .models import BASE, logits, saved, tiny

CONFIG = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM")


def windows(dtype=torch.float32) -> dict[str, nn.Parameter]:
    return {"b": nn.Parameter(torch.ones(2, 3, dtype=dtype)), "a": nn.Parameter(torch.zeros(4, dtype=dtype))}


def slot(model) -> dict[str, nn.Parameter]:
    return {n.replace(".default", ""): p for n, p in model.named_parameters() if ".default" in n}


def test_a_switched_model_computes_what_a_loaded_one_computes(tmp_path):
    people = {f"p{seed}": saved(CONFIG, tmp_path / str(seed), seed) for seed in range(5)}
    live = get_peft_model(tiny(), CONFIG)
    before = logits(live)
    switcher = Switcher(slot(live), capacity=2)
    for name, (adapter, _) in people.items():
        switcher.add(name, adapter)
    for name in ["p3", "p0", "p3", "p4", "p1", "p2"]:
        switcher.switch(name)
        assert switcher.active == name
        assert torch.equal(logits(live), logits(people[name][1]))
    switcher.release()
    assert torch.equal(logits(live), before)


def test_all_rows_are_one_piece_of_memory():
    parameters = windows()
    switcher = Switcher(parameters)
    places = set()
    for i in range(8):
        switcher.add(str(i), np.arange(10, dtype=np.float32) + i)
        switcher.switch(str(i))
        places.add(parameters["a"].untyped_storage().data_ptr())
        assert parameters["b"].untyped_storage().data_ptr() in places
    assert len(places) == 1
    assert parameters["a"].tolist() == [7, 8, 9, 10]
    assert parameters["b"].tolist() == [[11, 12, 13], [14, 15, 16]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ars"), st.integers(0, 5), st.integers(0, 99)), max_size=40))
def test_whatever_is_added_removed_and_switched_the_parameters_are_the_active_ones(steps):
    parameters, known, active = windows(), {}, None
    switcher = Switcher(parameters, capacity=1)
    for kind, who, seed in steps:
        name = str(who)
        if kind == "a":
            known[name] = np.random.default_rng(seed).normal(size=10).astype(np.float32)
            switcher.add(name, known[name])
        elif name not in known:
            with pytest.raises(AdapterError, match="adapter name"):
                (switcher.switch if kind == "s" else switcher.remove)(name)
        elif kind == "s":
            switcher.switch(name)
            active = name
        else:
            switcher.remove(name)
            del known[name]
            active = None if active == name else active
        assert switcher.active == active
        assert sorted(switcher.names) == sorted(known)
        expected = known[active] if active else np.array([0] * 4 + [1] * 6, np.float32)
        found = switcher.schema.flatten({n: p.detach().numpy() for n, p in parameters.items()})
        assert np.array_equal(found, expected)
        assert all(np.array_equal(switcher.vector(n), v) for n, v in known.items())
    assert len(switcher) == len(known)


def test_training_changes_the_active_row_alone():
    parameters = windows()
    switcher = Switcher(parameters, capacity=1)
    for name in ("one", "two"):
        switcher.add(name, np.zeros(10, np.float32))
    optimizer = torch.optim.SGD(parameters.values(), lr=1.0)
    switcher.switch("one")
    sum(p.sum() for p in parameters.values()).backward()
    optimizer.step()
    switcher.add("three", np.ones(10, np.float32))
    optimizer.step()
    assert switcher.vector("one").tolist() == [-2.0] * 10
    assert switcher.vector("two").tolist() == [0.0] * 10
    switcher.switch("two")
    assert parameters["a"].tolist() == [0.0] * 4


def test_parameters_of_another_precision_take_what_fits():
    parameters = windows(torch.bfloat16)
    switcher = Switcher(parameters)
    switcher.add("x", np.full(10, 1.0 + 2.0**-10, np.float32))
    switcher.switch("x")
    assert parameters["b"].dtype == torch.bfloat16
    assert switcher.vector("x").tolist() == [1.0] * 10


def test_adapters_that_would_compute_something_else_are_refused(tmp_path):
    live = get_peft_model(tiny(), CONFIG)
    switcher = Switcher(slot(live))
    switcher.add("fits", saved(CONFIG, tmp_path / "a")[0])
    louder = LoraConfig(r=2, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    with pytest.raises(AdapterError, match="adapter lora_alpha: found 8, expected 4, as in the others; bring it"):
        switcher.add("louder", saved(louder, tmp_path / "b")[0])
    fewer = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj"], task_type="CAUSAL_LM")
    with pytest.raises(AdapterError, match="adapter tensor"):
        switcher.add("fewer", saved(fewer, tmp_path / "c")[0])
    with pytest.raises(AdapterError, match="adapter vector shape"):
        switcher.add("short", np.zeros(3, np.float32))
    assert switcher.names == ["fits"]
    assert "fits" in switcher


def test_parameters_must_be_of_one_kind():
    for parameters in ({}, {"a": windows()["a"], "b": windows(torch.bfloat16)["b"]}):
        with pytest.raises(AdapterError, match="parameters"):
            Switcher(parameters)


def test_a_switch_is_far_cheaper_than_pefts_and_as_exact():
    figures = measure_switch(50)
    assert figures["difference"] == 0.0
    assert 10 * figures["switch_us"] < figures["peft_set_adapter_us"]
    assert 10 * figures["switch_us"] < figures["peft_hotswap_us"]


def test_the_names_of_an_adapter_are_those_of_the_parameters(tmp_path):
    adapter, model = saved(CONFIG, tmp_path)
    assert Switcher(slot(model)).schema.names() == Adapter.load(tmp_path, BASE).schema.names() == adapter.schema.names()
