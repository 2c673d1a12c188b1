"""What is scored is what the whole model says, counted without shortcuts."""

import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedpeft.data.windows import IGNORED, Windows
from fedpeft.methods.attached import SHARED
from fedpeft.tasks import Batch
from fedpeft.training import Tally, evaluate
from fedpeft.training.evaluate import LANES

DTYPES = pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
totals = st.integers(0, 10**6).map(float)
tallies = st.builds(Tally, *[totals] * len(fields(Tally)))


@pytest.fixture(scope="module")
def tuned(attach):
    """Return models whose adapter does something."""
    made = {dtype: attach(dtype) for dtype in ("float32", "bfloat16")}
    for model in made.values():
        size = model.schemas[SHARED].size
        model.write(SHARED, np.random.default_rng(3).normal(0, 0.05, size).astype(np.float32))
    return made


def tensors(text: Windows) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(text.ids.astype(np.int64)), torch.from_numpy(text.labels.astype(np.int64))


def full_logits(attached, text: Windows) -> tuple[np.ndarray, np.ndarray]:
    """Return the whole model's logits, one row at a time, where one of the person's pieces comes next."""
    found, targets = [], []
    for ids, labels in zip(*tensors(text), strict=True):
        with torch.no_grad():
            logits = attached.model(input_ids=ids[None]).logits[0].float().numpy()
        for position in range(1, len(ids)):
            if labels[position] != IGNORED:
                found.append(logits[position - 1])
                targets.append(int(labels[position]))
    return np.array(found), np.array(targets)


@DTYPES
def test_labelled_logits_are_the_whole_models_at_those_positions(tuned, task, text, dtype):
    expected, targets = full_logits(tuned[dtype], text)
    with torch.no_grad():
        ours, ours_targets = task.predict(tuned[dtype].model, Batch(*tensors(text)))
    assert ours.dtype == torch.float32
    assert ours_targets.tolist() == targets.tolist()
    # Batched and single matrix products may round differently: the last bit of bfloat16 is 2^-8 of the number.
    tolerance = {"float32": 2e-5, "bfloat16": 2.0**-5}[dtype]
    np.testing.assert_allclose(ours.numpy(), expected, atol=tolerance * np.abs(expected).max(), rtol=0)


def test_the_loss_is_transformers_own_weighted_by_pieces(tuned, task, text):
    total = 0.0
    for ids, labels in zip(*tensors(text), strict=True):
        with torch.no_grad():
            loss = tuned["float32"].model(input_ids=ids[None], labels=labels[None]).loss
        total += float(loss) * int((labels[1:] != IGNORED).sum())
    tally = evaluate(tuned["float32"], task, text)
    assert tally.tokens == text.tokens
    assert tally.loss == pytest.approx(total, rel=1e-5)
    assert tally.metrics()["loss"] == pytest.approx(total / text.tokens, rel=1e-5)


def test_top_1_and_top_3_are_what_sorting_everything_gives(tuned, task, text):
    logits, targets = full_logits(tuned["float32"], text)
    ranked = np.argsort(-logits, axis=1)
    first = sum(int(row[0] == target) for row, target in zip(ranked, targets, strict=True))
    three = sum(int(target in row[:3]) for row, target in zip(ranked, targets, strict=True))
    tally = evaluate(tuned["float32"], task, text)
    assert three > first > 0
    assert (tally.top1, tally.top3) == (first, three)


def test_of_pieces_that_tie_one_is_first_and_three_are_among_the_first_three(attach, task):
    """bfloat16 logits often tie, and a keyboard has three places; counting every equal as a hit flatters it."""
    attached = attach()
    attached.activate()
    ids = np.array([[1, 3, 300, 301, 302, 303]], np.int32)
    tied = np.arange(100, 108)
    with torch.no_grad():
        hidden = attached.base.model.model(input_ids=torch.from_numpy(ids.astype(np.int64))).last_hidden_state[0, -1]
        attached.base.model.get_input_embeddings().weight[tied] = hidden * 100 / hidden.norm()
    rows = np.concatenate([np.repeat(ids, 8, axis=0), tied[:, None].astype(np.int32)], axis=1)
    labels = np.full_like(rows, IGNORED)
    labels[:, -1] = tied
    tally = evaluate(attached, task, Windows(rows, labels))
    assert tally.tokens == 8
    assert (tally.top1, tally.top3) == (1, 3)


def test_keystrokes_are_counted_on_the_same_predictions(tuned, task, text, keystrokes):
    logits, targets = full_logits(tuned["float32"], text)
    tally = evaluate(tuned["float32"], task, text)
    assert (tally.saved, tally.characters) == keystrokes.count(torch.from_numpy(logits), torch.from_numpy(targets))
    assert 0 < tally.saved < tally.characters


def test_the_sum_over_parts_is_the_whole(tuned, task, text):
    parts = [Windows(text.ids[i::3], text.labels[i::3]) for i in range(3)]
    total = sum((evaluate(tuned["float32"], task, part) for part in parts), Tally())
    whole = evaluate(tuned["float32"], task, text)
    assert total.loss == pytest.approx(whole.loss, rel=1e-5)
    for name in ("tokens", "top1", "top3", "saved", "characters"):
        assert getattr(total, name) == getattr(whole, name)


def test_scoring_twice_gives_one_result_and_moves_nothing(tuned, task, text):
    attached = tuned["float32"]
    before = attached.read(SHARED)
    assert evaluate(attached, task, text) == evaluate(attached, task, text)
    assert np.array_equal(attached.read(SHARED), before)


def test_nothing_to_score_is_an_empty_tally(tuned, task, text):
    assert evaluate(tuned["float32"], task, text.head(0)) == Tally()
    unlabelled = Windows(text.ids, np.full_like(text.labels, IGNORED))
    assert evaluate(tuned["float32"], task, unlabelled) == Tally()


@given(tallies, tallies, tallies)
def test_tallies_add_field_by_field_in_any_order(a, b, c):
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a
    assert a + Tally() == a
    assert (a + b).lanes() == {name: a.lanes()[name] + b.lanes()[name] for name in LANES}
    assert Tally(**a.lanes()) == a


def test_metrics_are_means_and_stay_finite():
    metrics = Tally(loss=20.0, tokens=10.0, top1=2.0, top3=5.0, saved=6.0, characters=24.0).metrics()
    assert metrics == {
        "loss": 2.0,
        "perplexity": math.exp(2.0),
        "top1": 0.2,
        "top3": 0.5,
        "keystrokes_saved": 0.25,
        "tokens": 10.0,
    }
    assert all(math.isfinite(value) for value in Tally(loss=1e9, tokens=1.0).metrics().values())
    assert Tally().metrics()["perplexity"] == 1.0
