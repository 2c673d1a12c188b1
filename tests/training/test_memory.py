"""Switches that save memory change what is kept, not what is computed."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fedpeft.methods.attached import SHARED
from fedpeft.training import Training, train
from fedpeft.training.optimizer import optimizer_for

CHUNK = 16


class Rows(TorchDispatchMode):
    """Notes how many rows as wide as the vocabulary ever exist at once, in logits or in their gradients."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self._vocabulary, self._weights, self.most = vocabulary, {width, vocabulary}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple) else (out,):
            shape = tuple(tensor.shape) if isinstance(tensor, Tensor) else ()
            if len(shape) == 2 and shape[1] == self._vocabulary and shape[0] not in self._weights:
                self.most = max(self.most, shape[0])
        return out


@contextmanager
def kept(model: torch.nn.Module) -> Iterator[list[Tensor]]:
    """Collect what autograd keeps for the backward pass, the model's own weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        at = tensor.untyped_storage().data_ptr()
        if at not in weights:
            found.setdefault(at, tensor)
        return tensor

    collected: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield collected
    collected.extend(found.values())


def one_step(attached, task, text, **options) -> list[Tensor]:
    with kept(attached.model) as tensors:
        train(attached, SHARED, task, text, Training(steps=1, batch=len(text), **options), seed=0)
    return tensors


def bytes_of(tensors: list[Tensor]) -> int:
    return sum(t.untyped_storage().nbytes() for t in tensors)


@pytest.mark.parametrize("chunk", [1, 7, CHUNK, 10_000])
def test_chunks_have_the_loss_and_the_gradients_of_the_whole(attached, perturbed, task, text, gradients, chunk):
    whole, chunked = gradients(), gradients(chunk=chunk)
    assert whole.keys() == chunked.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(chunked[name], gradient, atol=1e-5, rtol=1e-5)
    losses = []
    for options in ({}, {"chunk": chunk}):
        attached.write(SHARED, perturbed)
        losses.append(train(attached, SHARED, task, text, Training(steps=3, batch=4, **options), seed=0).loss)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_only_one_chunk_of_logits_ever_exists(attached, perturbed, task, text):
    config = attached.model.config
    most = {}
    for chunk in (None, CHUNK):
        with Rows(config.vocab_size, config.hidden_size) as seen:
            train(attached, SHARED, task, text, Training(steps=1, batch=len(text), chunk=chunk), seed=0)
        most[chunk] = seen.most
    assert most == {None: text.tokens, CHUNK: CHUNK}
    assert text.tokens > 4 * CHUNK


def test_chunks_keep_no_logits_for_the_backward_pass(attached, perturbed, task, text):
    width = attached.model.config.vocab_size
    whole, chunked = (one_step(attached, task, text, chunk=chunk) for chunk in (None, CHUNK))
    assert max(t.numel() for t in whole) >= text.tokens * width
    assert max(t.numel() for t in chunked) < text.tokens * width
    assert bytes_of(chunked) < bytes_of(whole) - 3 * text.tokens * width


def test_checkpointing_has_the_same_gradients_and_keeps_fewer_activations(attached, perturbed, task, text, gradients):
    kept_all, again = gradients(), gradients(checkpointing=True)
    assert kept_all.keys() == again.keys()
    for name, gradient in kept_all.items():
        torch.testing.assert_close(again[name], gradient, atol=1e-6, rtol=1e-6)
    plain, checkpointed = (one_step(attached, task, text, checkpointing=on) for on in (False, True))
    assert bytes_of(checkpointed) < bytes_of(plain) / 4


@pytest.mark.parametrize("stopped", [False, True])
def test_checkpointing_is_over_when_training_is(attached, task, text, monkeypatch, stopped):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    training = Training(steps=1, batch=2, checkpointing=True)
    if stopped:
        monkeypatch.setattr(attached, "after_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(attached, SHARED, task, text, training, seed=0)
    else:
        train(attached, SHARED, task, text, training, seed=0)
    assert not attached.model.is_gradient_checkpointing
    assert not attached.model.training


def test_all_that_saves_memory_together_trains_as_without(attached, perturbed, task, text):
    training = Training(steps=4, batch=4, learning_rate=2e-3)
    results = []
    for options in ({}, {"checkpointing": True, "chunk": CHUNK}):
        attached.write(SHARED, perturbed)
        train(attached, SHARED, task, text, training.model_copy(update=options), seed=0)
        results.append(attached.read(SHARED) - perturbed)
    assert np.linalg.norm(results[0] - results[1]) < 1e-3 * np.linalg.norm(results[0])


def test_the_8_bit_optimizers_state_is_8_bit_wherever_a_block_of_it_fits(attached):
    parameters = [*attached.parameters(SHARED), torch.nn.Parameter(torch.zeros(255))]
    optimizer = optimizer_for(parameters, Training(steps=1, optimizer="adamw8bit"))
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    for parameter in parameters:
        state = optimizer.state[parameter]
        expected = torch.uint8 if parameter.numel() >= 256 else torch.float32
        assert {state["state1"].dtype, state["state2"].dtype} == {expected}
        assert state["state1"].numel() == parameter.numel()
        parameter.grad = None
    large = [p for p in parameters if p.numel() >= 256]
    assert len(large) == len(parameters) - 1
    held = sum(t.numel() * t.element_size() for p in large for t in optimizer.state[p].values() if torch.is_tensor(t))
    # Plain AdamW holds 8 bytes a parameter; the scales and lookup tables of many small tensors cost some of the gain.
    assert held < 8 * sum(p.numel() for p in large)


def test_the_8_bit_optimizer_learns(attached, task, text):
    def losses(optimizer: str) -> list[float]:
        attached.write(SHARED, attached.initial[SHARED])
        few, many = (Training(steps=n, batch=11, learning_rate=5e-3, optimizer=optimizer) for n in (1, 20))
        before = train(attached, SHARED, task, text, few, seed=0).loss
        train(attached, SHARED, task, text, many, seed=0)
        return [before, train(attached, SHARED, task, text, few, seed=0).loss]

    plain, small = losses("adamw"), losses("adamw8bit")
    assert small[0] == plain[0]
    assert small[1] < small[0] - 0.3
    assert small[1] == pytest.approx(plain[1], abs=0.3)


def test_the_8_bit_optimizer_gives_one_result_for_one_seed(attached, task, text):
    found = []
    for _ in range(2):
        attached.write(SHARED, attached.initial[SHARED])
        train(attached, SHARED, task, text, Training(steps=3, batch=4, optimizer="adamw8bit"), seed=0)
        found.append(attached.read(SHARED))
    assert np.array_equal(*found)


def test_a_head_moves_faster_by_its_factor(attached):
    factors = attached.parameters(SHARED)
    head = torch.nn.Parameter(torch.zeros(3))
    for name in ("adamw", "adamw8bit"):
        training = Training(steps=1, head_factor=4.0, optimizer=name)
        groups = optimizer_for([*factors, head], training, {id(head): training.head_factor}).param_groups
        assert [(group["factor"], len(group["params"])) for group in groups] == [(1.0, len(factors)), (4.0, 1)]


def test_autocast_computes_in_bfloat16_and_learns(attached, task, text):
    seen = set()
    layer = attached.model.get_submodule("model.layers.0.self_attn.q_proj").base_layer
    handle = layer.register_forward_hook(lambda _, inputs, out: seen.add(out.dtype))
    few, many = (Training(steps=n, batch=11, learning_rate=5e-3, autocast=True) for n in (1, 20))
    before = train(attached, SHARED, task, text, few, seed=0).loss
    train(attached, SHARED, task, text, many, seed=0)
    after = train(attached, SHARED, task, text, few, seed=0).loss
    handle.remove()
    assert seen == {torch.bfloat16}
    assert after < before - 0.3
    assert {p.dtype for p in attached.parameters(SHARED)} == {torch.float32}
    attached.write(SHARED, attached.initial[SHARED])
    exact = train(attached, SHARED, task, text, few.model_copy(update={"autocast": False}), seed=0).loss
    assert before == pytest.approx(exact, rel=0.01)
    assert before != exact
