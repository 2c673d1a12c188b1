"""Training on another device, which is pretended here: nothing is forgotten, and the numbers are the processor's."""

import numpy as np
import pytest
import torch

from fedpeft.base import load_base
from fedpeft.base.placement import chance, device_of, place, seeded, set_chance
from fedpeft.data import Client, load_federation
from fedpeft.data.windows import windows
from fedpeft.errors import BaseError
from fedpeft.methods import Attached, Method
from fedpeft.methods.attached import SHARED
from fedpeft.methods.lora import Lora
from fedpeft.methods.method import CAUSAL
from fedpeft.tasks import open_task
from fedpeft.tasks.classification import Classification
from fedpeft.tasks.next_word import NextWord
from fedpeft.training import Training, evaluate, train
from fedpeft.training.evaluate import mean_loss

from ..methods import tiny
from ..methods.test_every_method import CASES, examples, method_for
from .pretend import CUDA, pretended

CPU = torch.device("cpu")
ENCODED = ("lora", "full", "vera", "adalora", "prompt_tuning", "unipelt")
"""Methods of every kind, for encoders and their heads; the others differ in nothing there."""
SWITCHES = {
    "autocast off, chunks": {"chunk": 5, "micro_batch": 2},
    "checkpointing": {"checkpointing": True},
    "noise": {"noise": 5.0},
    "pgd": {"adversarial": {"kind": "pgd", "steps": 2}},
    "distillation": {"distillation": {"weight": 0.5}},
    "augmentation": {"augmentation": {"swap": 0.5, "drop": 0.2}},
    "patience": {"patience": 1},
}


def result(method: Method, kind: str, device: torch.device, **options: object):
    """Return what a method learns in a step, what it adds at each place, what it folds to, and its loss."""
    model = tiny.llama() if kind == CAUSAL else tiny.bert()
    base, of = tiny.base_of(model), examples(kind, 1)
    attached = Attached(base, method, None, 0, device)
    task = NextWord(base, None, 16) if kind == CAUSAL else Classification(base, None, 16)
    training = Training(steps=1, batch=6, **options)
    train(attached, SHARED, task, of, training, seed=0, validation=examples(kind, 2))
    changes = {name: np.array(t.detach().cpu()) for name, t in attached.changes(SHARED).items()}
    return attached.read(SHARED), changes, attached.folded(SHARED).vector, mean_loss(attached, task, of)


def same(one, other) -> bool:
    return (
        np.array_equal(one[0], other[0])
        and all(np.array_equal(value, other[1][name], equal_nan=True) for name, value in one[1].items())
        and np.array_equal(one[2], other[2])
        and one[3] == other[3]
    )


@pytest.mark.parametrize(("name", "kind"), [c for c in CASES if c[1] == CAUSAL or c[0] in ENCODED])
def test_every_method_trains_on_a_device_what_it_trains_on_the_processor(name, kind, monkeypatch):
    method = method_for(name)
    if kind not in method.tasks or method.precision != "full":
        pytest.skip("refused, or quantized: see below")
    here = result(method, kind, CPU)
    with pretended(monkeypatch):
        there = result(method, kind, CUDA)
    assert same(here, there)


@pytest.mark.parametrize("options", SWITCHES.values(), ids=SWITCHES)
def test_every_switch_of_training_works_on_a_device(options, monkeypatch):
    here = result(Lora(rank=4), CAUSAL, CPU, **options)
    with pretended(monkeypatch):
        there = result(Lora(rank=4), CAUSAL, CUDA, **options)
    assert same(here, there)


@pytest.mark.parametrize("precision", ["nf4", "int8"])
def test_quantized_weights_move_with_their_scales_before_and_after_a_pass(precision, monkeypatch):
    ids = torch.arange(3, 11)[None]
    for passes in (0, 1):
        model = load_base("keyboard", "float32", precision=precision).model
        with torch.no_grad():
            for _ in range(passes):
                model(input_ids=ids)
            with pretended(monkeypatch) as there:
                place(model, CUDA)
                tensors = [t for layer in model.modules() for t in held(layer)]
                assert len(tensors) > 50
                assert all(there(t) for t in tensors)


def held(layer: torch.nn.Module):
    """Yield the tensors that a layer computes with, those that bitsandbytes keeps beside it among them."""
    yield from layer.parameters(recurse=False)
    state, weight = getattr(layer, "state", None), getattr(layer, "weight", None)
    if hasattr(state, "CB"):
        yield from (t for t in (state.CB, state.SCB, weight.CB, weight.SCB) if t is not None)
    quantized = getattr(weight, "quant_state", None)
    if quantized is not None:
        yield from (quantized.absmax, quantized.code, quantized.offset)
        yield from (quantized.state2.absmax, quantized.state2.code)


@pytest.mark.parametrize("passes", [0, 1])
def test_an_int8_layer_computes_the_same_after_it_was_moved(passes):
    ids = torch.arange(3, 11)[None]
    model = load_base("keyboard", "float32", precision="int8").model
    with torch.no_grad():
        bare = load_base("keyboard", "float32", precision="int8").model(input_ids=ids).logits
        for _ in range(passes):
            model(input_ids=ids)
        place(model, CPU)
        assert torch.equal(model(input_ids=ids).logits, bare)


def test_the_builtin_base_is_scored_on_a_device_with_its_keystrokes(monkeypatch):
    def tally(device: torch.device):
        base = load_base("keyboard", "float32")
        attached = Attached(base, Lora(rank=2), Lora(rank=2), 0, device)
        text = windows(Client.of(load_federation("keyboard"), "user-05").split.test, base.tokenizer, 32).head(3)
        return evaluate(attached, NextWord(base, load_federation("keyboard"), 32), text)

    here = tally(CPU)
    with pretended(monkeypatch):
        assert tally(CUDA) == here
    assert here.saved > 0


def test_pictures_are_looked_at_on_a_device(monkeypatch):
    def loss(device: torch.device) -> float:
        task = open_task("caption", "shapes", "tiny-llava", "float32", "full", 16)
        attached = Attached(task.base, Lora(rank=2), None, 0, device)
        some = task.splits(task.client_ids()[0]).train.head(2)
        train(attached, SHARED, task, some, Training(steps=1, batch=2), seed=0)
        return mean_loss(attached, task, some)

    here = loss(CPU)
    with pretended(monkeypatch):
        assert loss(CUDA) == here


def test_what_is_forgotten_on_the_processor_is_refused_as_by_a_real_device(monkeypatch):
    with pretended(monkeypatch):
        layer = torch.nn.Linear(2, 2).to(CUDA)
        with pytest.raises(RuntimeError, match="same device"):
            layer(torch.ones(1, 2))
        with pytest.raises(TypeError, match="numpy"):
            layer.weight.detach().numpy()
        assert layer(torch.ones(1, 2).to(CUDA)).device == CUDA


def test_auto_takes_a_device_where_there_is_one_and_cuda_has_a_number(monkeypatch):
    assert device_of("auto") == device_of("cpu") == CPU
    with pretended(monkeypatch):
        assert device_of("auto") == device_of("cuda") == device_of("cuda:0") == CUDA
        with pytest.raises(BaseError, match=r"base.device: found 'cuda:1', .*; there are cuda:0"):
            device_of("cuda:1")
    with pytest.raises(BaseError, match=r"base.device: found 'cuda', expected a device that torch sees here; use cpu"):
        device_of("cuda")


def test_chance_is_seeded_and_put_back():
    before = torch.get_rng_state()
    with seeded(3, CPU):
        first, was = torch.rand(2), chance(CPU)
        second = torch.rand(2)
        set_chance(was, CPU)
        assert torch.equal(torch.rand(2), second)
    with seeded(3):
        assert torch.equal(torch.rand(2), first)
    assert torch.equal(torch.get_rng_state(), before)
