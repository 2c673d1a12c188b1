"""A private prompt beside a shared one, hybrids, and how a prompt starts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedpeft.base import load_base
from fedpeft.methods import Attached, parse_method
from fedpeft.methods.attached import PRIVATE, SHARED
from fedpeft.methods.lora import Lora
from fedpeft.methods.lora_prompt import LoraPrompt
from fedpeft.methods.p_tuning_v2 import PTuningV2
from fedpeft.methods.prompt_tuning import PromptOnTop, PromptTuning
from fedpeft.methods.prompts import VECTORS
from tests.methods.prompted import (
    CASES,
    KEYS,
    ON,
    D,
    K,
    attached,
    generated,
    logits,
    made,
    padded,
)
from tests.methods.tiny import LAYERS, base_of, llama

# What a set is.


def permuted(own: Attached, order: np.ndarray) -> np.ndarray:
    tensors = dict(own.schemas[SHARED].unflatten(own.read(SHARED)))
    tensors[VECTORS] = tensors[VECTORS][order]
    return own.schemas[SHARED].flatten(tensors)


@ON
def test_the_order_of_a_prefix_says_nothing(kind):
    own = attached(kind, PTuningV2(length=K))
    expected, before = logits(own.model, kind), own.read(SHARED)
    other = permuted(own, np.roll(np.arange(K), 2))
    assert not np.array_equal(other, before)
    own.write(SHARED, other)
    torch.testing.assert_close(logits(own.model, kind), expected)


def test_the_mean_of_sets_in_many_orders_keeps_little_of_them():
    """Of n orders of k independent vectors the mean has sqrt(1/n + (1 - 1/n)/k) of their norm: 39 % for 16 and 10."""
    own = Attached(base_of(llama()), PromptTuning(length=10), None, seed=0)
    rng = np.random.default_rng(0)
    orders = [permuted(own, rng.permutation(10)) for _ in range(16)]
    kept = np.linalg.norm(np.mean(orders, axis=0)) / np.linalg.norm(own.read(SHARED))
    assert kept == pytest.approx((1 / 16 + (15 / 16) / 10) ** 0.5, abs=0.02)
    assert kept == pytest.approx(0.39, abs=0.02)


# Starts from words.


@pytest.fixture(scope="module")
def keyboard() -> dict[str, torch.Tensor]:
    base = load_base("keyboard", "float32")
    words = base.tokenizer("see you at the station", add_special_tokens=False, return_tensors="pt")["input_ids"]
    ids = torch.tensor([[1, 3, *range(400, 430), 2, 4, 600, 2]])
    with torch.no_grad():
        after = base.model(torch.cat([words, ids], dim=1)).logits[:, words.shape[1] :]
    return {"words": words, "ids": ids, "bare": base.model(ids).logits, "after": after}


@pytest.mark.parametrize("kind", [PromptTuning, PTuningV2], ids=lambda m: m.name)
def test_a_start_from_a_text_is_that_text_before_every_other(kind, keyboard):
    method = kind(length=keyboard["words"].shape[1], init_text="see you at the station")
    own = Attached(load_base("keyboard", "float32"), method, None, seed=0)
    found = logits(own.model, "llama", input_ids=keyboard["ids"])
    torch.testing.assert_close(found, keyboard["after"], atol=1e-4, rtol=1e-4)
    assert (found - keyboard["bare"]).abs().max() > 0.1
    assert np.array_equal(own.initial[SHARED], Attached(load_base("keyboard", "float32"), method, None, 7).read(SHARED))


@pytest.mark.parametrize("kind", [PromptTuning, PTuningV2], ids=lambda m: m.name)
@pytest.mark.parametrize("length", [2, 25])
def test_a_text_is_cut_or_repeated_to_the_length(kind, length):
    own = Attached(load_base("keyboard"), kind(length=length, init_text="see you at the station"), None, seed=0)
    assert own.schemas[SHARED].shapes[0][1][0] == length


def test_a_prompts_random_start_has_the_deviation_of_the_bases_embeddings():
    base = load_base("keyboard", "float32")
    expected = float(base.model.get_input_embeddings().weight.std())
    own = Attached(base, PromptTuning(length=64), None, seed=0)
    assert own.read(SHARED).std() == pytest.approx(expected, rel=0.02)


# Several at once.


@ON
def test_a_private_prompt_follows_the_shared_one(kind):
    shared = PromptTuning(length=K)
    own = attached(kind, shared, private=shared.private(3))
    both = logits(own.model, kind)
    one = attached(kind, PromptTuning(length=K + 3))
    tensors = [own.schemas[slot].unflatten(own.read(slot)) for slot in own.slots]
    whole = dict(tensors[0]) | {VECTORS: np.concatenate([t[VECTORS] for t in tensors])}
    one.write(SHARED, one.schemas[SHARED].flatten(whole))
    torch.testing.assert_close(both, logits(one.model, kind))


@ON
def test_no_share_of_a_private_prompt_is_no_private_prompt(kind):
    shared = PromptTuning(length=K)
    own = attached(kind, shared, private=shared.private(3))
    both = logits(own.model, kind)
    own.activate(SHARED)
    alone = logits(own.model, kind)
    start, trained = own.initial[PRIVATE], own.read(PRIVATE)
    own.activate(SHARED, PRIVATE)
    own.write(PRIVATE, own.share(PRIVATE, start, trained, 0.0))
    assert torch.equal(logits(own.model, kind), alone)
    own.write(PRIVATE, own.share(PRIVATE, start, trained, 1.0))
    assert torch.equal(logits(own.model, kind), both)
    assert isinstance(own.methods[PRIVATE], PromptOnTop)
    assert own.methods[PRIVATE].private(2) is None


@ON
def test_two_prefixes_stand_beside_each_other(kind):
    own = attached(kind, PTuningV2(length=K), private=PTuningV2(length=3))
    one = attached(kind, PTuningV2(length=K + 3))
    tensors = [own.schemas[slot].unflatten(own.read(slot)) for slot in own.slots]
    heads = {n: t for n, t in tensors[0].items() if n != VECTORS}
    rows = np.concatenate([t.get(VECTORS, np.zeros((0, 0))) for t in tensors])
    one.write(SHARED, one.schemas[SHARED].flatten({**heads, VECTORS: rows}))
    torch.testing.assert_close(logits(own.model, kind), logits(one.model, kind))


@ON
def test_a_prompt_and_a_prefix_do_not_mind_who_came_first(kind):
    answers = []
    for order in ((PromptTuning(length=K), PTuningV2(length=3)), (PTuningV2(length=3), PromptTuning(length=K))):
        own = attached(kind, order[0], private=order[1])
        for slot, method in own.methods.items():
            vector = own.initial[slot].copy()
            size = {"prompt_tuning": K * D, "p_tuning_v2": 3 * LAYERS * 2 * KEYS[kind]}[method.name]
            mask = own.schemas[slot].mask(lambda name: name == VECTORS)
            vector[mask] = np.random.default_rng(size).normal(0.0, 1.0, size)
            own.write(slot, vector)
        answers.append(logits(own.model, kind))
        positions = torch.arange(12).expand(4, -1)
        torch.testing.assert_close(logits(own.model, kind, **padded(kind), position_ids=positions), answers[-1])
        if kind == "llama":
            assert torch.equal(generated(own.model), generated(own.model, use_cache=False))
    torch.testing.assert_close(*answers)


@ON
@pytest.mark.parametrize(
    ("hybrid", "part", "name"),
    [
        (CASES["lora_prompt"][0], PromptTuning(length=K), "prompt"),
        (CASES["lora_prefix"][0], PTuningV2(length=K), "prefix"),
        (CASES["prompt_adapter"][0], PromptTuning(length=K), "prompt"),
    ],
    ids=["lora_prompt", "lora_prefix", "prompt_adapter"],
)
def test_a_hybrid_whose_other_part_changes_nothing_is_its_prompt(kind, hybrid, part, name):
    own, alone = Attached(base_of(made(kind)), hybrid, None, 0), Attached(base_of(made(kind)), part, None, 1)
    tensors = alone.schemas[SHARED].unflatten(alone.read(SHARED))
    mask = own.schemas[SHARED].mask(lambda n: n == f"{name}.{VECTORS}")
    vector = own.read(SHARED)
    vector[mask] = tensors[VECTORS].ravel()
    own.write(SHARED, vector)
    torch.testing.assert_close(logits(own.model, kind), logits(alone.model, kind))


@pytest.mark.parametrize("name", ["lora_prompt", "lora_prefix", "prompt_adapter"])
def test_a_hybrids_private_adapter_starts_as_nothing_over_all_of_it(name):
    method = CASES[name][0]
    own = Attached(base_of(llama()), method, method.private(2), seed=0)
    own.activate(SHARED)
    alone = logits(own.model, "llama")
    own.activate(SHARED, PRIVATE)
    torch.testing.assert_close(logits(own.model, "llama"), alone)


def test_a_hybrid_is_written_as_tables_of_its_parts():
    method = parse_method({"name": "lora_prompt", "lora": {"rank": 2}, "prompt": {"length": 3}})
    assert method == LoraPrompt(lora=Lora(rank=2), prompt=PromptTuning(length=3))
    saved = method.saved()["method"]
    assert parse_method(saved) == method
