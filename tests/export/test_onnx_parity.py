"""The exported graph computes what peft computes, on every run path and for every adapter."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from fedpeft.device import Bundle
from fedpeft.device.decoder import Decoder
from fedpeft.export import export_adapter
from fedpeft.methods.attached import PRIVATE
from fedpeft.signing.signature import SigningKey

KEY = SigningKey.from_private_bytes(bytes(32))
NAMES = ["base", "rank 8", "rank 2", "both"]
ADAPTERS = NAMES[1:]


def prompts() -> list[list[int]]:
    random = np.random.default_rng(7)
    return [random.integers(5, 2048, length).tolist() for length in (1, 9, 60)]


@pytest.mark.parametrize("name", NAMES)
def test_logits_equal_pefts_for_every_rank_and_for_a_sum_of_two_adapters(exported, name):
    for ids in prompts():
        ours = exported.runtime.logits(ids, exported.loaded[name])
        assert np.abs(ours - exported.torch_logits(ids, name)).max() <= 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_greedy_tokens_with_a_cache_equal_torchs_without_one(exported, name):
    prompt = prompts()[1]
    ours = list(exported.runtime.generate(prompt, exported.loaded[name], tokens=24, ends=()))
    theirs = list(prompt)
    for _ in range(24):
        theirs.append(int(exported.torch_logits(theirs, name)[-1].argmax()))
    assert ours == theirs[len(prompt) :]


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_changes_the_answer_on_every_run_path(exported, name):
    runtime, adapter = exported.runtime, exported.loaded[name]
    for ids in prompts():
        assert np.abs(runtime.logits(ids, adapter) - runtime.logits(ids)).max() > 1e-2
    assert runtime.suggest("I am ", adapter) != runtime.suggest("I am ")
    assert runtime.suggest("I am g", adapter) != runtime.suggest("I am g")


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_still_acts_on_the_tokens_after_the_cached_ones(exported, name):
    decoder = Decoder(Bundle.open(exported.folder / "base", "base"))
    first, second = np.array([prompts()[1]]), np.array([[77]])
    _, cache = decoder.read(first, decoder.begin(), None)
    with_adapter, _ = decoder.read(second, cache, exported.loaded[name])
    without, _ = decoder.read(second, cache, None)
    assert np.abs(with_adapter - without).max() > 1e-2


def test_the_base_is_itself_again_after_any_adapter(exported):
    ids = prompts()[2]
    before = exported.runtime.logits(ids)
    for name in ADAPTERS:
        exported.runtime.logits(ids, exported.loaded[name])
        assert np.array_equal(exported.runtime.logits(ids), before)


def test_adapters_of_different_ranks_take_turns_in_one_graph(exported):
    ids = prompts()[1]
    alone = {name: exported.runtime.logits(ids, exported.loaded[name]) for name in NAMES}
    for name in [*NAMES, *reversed(NAMES)]:
        assert np.array_equal(exported.runtime.logits(ids, exported.loaded[name]), alone[name])


def test_an_extreme_adapter_is_as_near_to_float64_as_torchs_float32_is(exported, tmp_path):
    attached = exported.attached
    before = attached.read(PRIVATE)
    vector = np.random.default_rng(1).normal(0, 0.2, before.size).astype(np.float32)
    attached.write(PRIVATE, vector)
    try:
        theirs = [exported.torch_logits(ids, "rank 2") for ids in prompts()]
        exact = deepcopy(attached.model).double()
    finally:
        attached.write(PRIVATE, before)
    export_adapter(attached.adapter(PRIVATE, vector), tmp_path / "a", owner="a", base=exported.manifest, key=KEY)
    adapter, runtime = exported.runtime.load(tmp_path / "a"), exported.runtime
    with torch.no_grad():
        truth = [exact(input_ids=torch.tensor([ids])).logits[0].numpy() for ids in prompts()]
    ours = [runtime.logits(ids, adapter) for ids in prompts()]
    our_error, their_error = (max(np.abs(a - b).max() for a, b in zip(x, truth, strict=True)) for x in (ours, theirs))
    assert our_error <= max(1e-4, 10 * their_error)
    tokens = [list(runtime.generate(prompts()[1], a, tokens=24, ends=())) for a in (adapter, None)]
    assert tokens[0] != tokens[1]
