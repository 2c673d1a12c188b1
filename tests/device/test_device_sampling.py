"""Choosing the next token, against transformers' own logits processors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from fedpeft.device.sampling import Sampling, softmax
from fedpeft.errors import FedpeftError


class Recorded:
    """A generator that remembers what was drawn from and with which probabilities."""

    def choice(self, among, p):
        self.among, self.p = among, p
        return among[0]


def ours(sampling: Sampling, logits: np.ndarray, read: list[int]) -> np.ndarray:
    recorded = Recorded()
    sampling.choose(logits, recorded, read)
    chances = np.zeros(len(logits))
    chances[recorded.among] = recorded.p
    return chances


def theirs(sampling: Sampling, logits: np.ndarray, read: list[int]) -> np.ndarray:
    steps = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        steps.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    steps.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        steps.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        steps.append(TopPLogitsWarper(sampling.top_p))
    return torch.softmax(steps(torch.tensor([read]), torch.tensor(logits[None], dtype=torch.float64)), -1)[0].numpy()


@settings(deadline=None, max_examples=200)
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(2, 60),
    temperature=st.floats(0.1, 4),
    top_k=st.integers(0, 70),
    top_p=st.floats(0.01, 1),
    penalty=st.floats(0.5, 3),
)
def test_probabilities_are_those_of_transformers(seed, size, temperature, top_k, top_p, penalty):
    random = np.random.default_rng(seed)
    logits = random.normal(0, 3, size).astype(np.float32)
    read = random.integers(0, size, 5).tolist()
    sampling = Sampling(temperature, top_k, top_p, penalty)
    assert np.abs(ours(sampling, logits, read) - theirs(sampling, logits, read)).max() < 1e-9


def test_equally_likely_tokens_are_kept_together_by_top_k_as_in_transformers():
    sampling, logits = Sampling(1.0, top_k=2), np.array([1, 3, 3, 3, 0], np.float32)
    assert np.allclose(ours(sampling, logits, [0]), theirs(sampling, logits, [0]))
    assert np.count_nonzero(ours(sampling, logits, [0])) == 3


def test_the_likeliest_after_the_penalty_is_taken_without_temperature():
    logits = np.array([2.0, 1.9, -1.0], np.float32)
    random = np.random.default_rng(0)
    assert Sampling().choose(logits, random, [0]) == 0
    assert Sampling(repetition_penalty=1.2).choose(logits, random, [0]) == 1
    assert Sampling(repetition_penalty=1.2).choose(logits, random, [1, 5, 9]) == 0


@given(st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=30), st.integers(1, 40), st.integers(0, 99))
def test_a_draw_is_among_the_likeliest_k(scores, k, seed):
    logits = np.array(scores, np.float32)
    token = Sampling(temperature=1.0, top_k=k).choose(logits, np.random.default_rng(seed))
    assert logits[token] >= np.sort(logits)[-min(k, len(logits))]


def test_draws_follow_the_softmax_of_the_logits_over_the_temperature():
    logits = np.array([0.0, 1.0, 2.0], np.float32)
    random = np.random.default_rng(0)
    draws = [Sampling(temperature=0.5).choose(logits, random) for _ in range(4000)]
    expected = np.exp(2 * logits) / np.exp(2 * logits).sum()
    assert np.abs(np.bincount(draws, minlength=3) / 4000 - expected).max() < 0.03
    assert np.allclose(softmax(2 * logits), expected)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_p", float("nan")),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", 1e-320),
        ("repetition_penalty", 101.0),
        ("repetition_penalty", float("nan")),
        ("repetition_penalty", float("inf")),
    ],
)
def test_settings_without_meaning_are_refused_by_name_and_value(field, value):
    with pytest.raises(FedpeftError, match=f"{field}: found {value!r}"):
        Sampling(**{field: value})


@pytest.mark.parametrize("temperature", [1e-320, 1e-307, 1e-30])
def test_however_low_the_temperature_the_likeliest_is_drawn(temperature):
    logits = np.array([-30.0, 12.0, 11.9, 0.0], np.float32)
    assert Sampling(temperature, top_p=0.9).choose(logits, np.random.default_rng(0)) == 1


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_scores_that_are_none_are_refused(number, temperature):
    logits = np.array([0.0, number, 1.0], np.float32)
    with pytest.raises(FedpeftError, match="scores: found 'NaN or infinity'"):
        Sampling(temperature).choose(logits, np.random.default_rng(0))
