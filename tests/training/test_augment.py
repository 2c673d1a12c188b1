"""Augmentation changes what is read, in the stated shares, and never what is predicted."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft.data.windows import IGNORED
from fedpeft.methods.attached import SHARED
from fedpeft.tasks import Batch
from fedpeft.training import Training, train
from fedpeft.training.augment import augment
from fedpeft.training.config import Augmentation

BLANK = 999
shares = st.sampled_from([0.0, 0.1, 0.5, 0.9])


def batch_of(rows: int, length: int) -> Batch:
    """Return a batch in which every id is another."""
    ids = torch.arange(rows * length).reshape(rows, length) + 1000
    return Batch(ids, ids.clone())


@settings(deadline=None, max_examples=150)
@given(st.builds(Augmentation, drop=shares, swap=shares, replace=shares), st.integers(0, 999), st.integers(1, 20))
def test_only_free_places_change_and_only_to_pieces_of_free_places_or_blanks(wanted, seed, length):
    rng = np.random.default_rng(seed)
    batch = batch_of(5, length)
    free = torch.from_numpy(rng.random((5, length)) < 0.6)
    changed = augment(batch, free, wanted, BLANK, rng)
    assert torch.equal(batch.ids, batch_of(5, length).ids)  # what was given is left as it was
    assert changed.labels is batch.labels
    assert torch.equal(changed.ids[~free], batch.ids[~free])
    assert set(changed.ids[free].tolist()) <= {BLANK, *batch.ids[free].tolist()}


@settings(deadline=None, max_examples=50)
@given(shares, st.integers(0, 999))
def test_swapping_alone_moves_neighbours_and_loses_nothing(share, seed):
    batch, free = batch_of(4, 30), torch.ones(4, 30, dtype=torch.bool)
    ids = augment(batch, free, Augmentation(swap=share), BLANK, np.random.default_rng(seed)).ids
    assert ((ids - batch.ids).abs() <= 1).all()
    assert torch.equal(ids.sort(dim=1).values, batch.ids)


@pytest.mark.parametrize("kind", ["drop", "swap", "replace"])
@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
def test_the_shares_are_right_on_average(kind, share):
    """Of 40,000 words the share that changes is within five standard deviations of what was asked."""
    batch, free = batch_of(100, 400), torch.ones(100, 400, dtype=torch.bool)
    ids = augment(batch, free, Augmentation(**{kind: share}), BLANK, np.random.default_rng(0)).ids
    changed = (ids != batch.ids).double().mean().item()
    # Swapped words come in pairs, which doubles the variance; a word at the edge has one chance instead of two.
    deviation = (2 * share * (1 - share) / batch.ids.numel()) ** 0.5
    assert abs(changed - share) < 5 * deviation + (share / 400 if kind == "swap" else 0)
    if kind == "drop":
        assert set(ids[ids != batch.ids].tolist()) == {BLANK}


def test_replacements_are_as_common_as_the_pieces_they_come_from():
    ids = torch.tensor([[1] * 30 + [2] * 60 + [3] * 10] * 200)
    free = torch.ones_like(ids, dtype=torch.bool)
    free[:, -10:] = False  # 3 is never read from
    found = augment(Batch(ids, ids), free, Augmentation(replace=0.5), BLANK, np.random.default_rng(0)).ids
    moved = Counter(found[ids == 1].tolist())
    assert moved[3] == 0
    assert moved[2] / 6000 == pytest.approx(0.5 * 2 / 3, abs=0.03)


def test_every_place_is_as_likely_to_be_swapped_whatever_its_number():
    batch, free = batch_of(4000, 12), torch.ones(4000, 12, dtype=torch.bool)
    ids = augment(batch, free, Augmentation(swap=0.6), BLANK, np.random.default_rng(0)).ids
    moved = (ids != batch.ids).double().mean(dim=0)
    assert ((moved[1:-1] - 0.6).abs() < 0.05).all()
    assert ((moved[[0, -1]] - 0.3).abs() < 0.05).all()  # nobody on one side


@pytest.mark.parametrize("length", [1, 6])
def test_where_there_is_nothing_to_change_nothing_is(length):
    batch = batch_of(3, length)
    everything = Augmentation(drop=0.9, swap=0.9, replace=0.9)
    ids = augment(batch, torch.zeros(3, length, dtype=torch.bool), everything, BLANK, np.random.default_rng(0)).ids
    assert torch.equal(ids, batch.ids)


def test_one_seed_is_one_augmentation():
    batch, free = batch_of(5, 40), torch.ones(5, 40, dtype=torch.bool)
    wanted = Augmentation(drop=0.2, swap=0.2, replace=0.2)
    one, same, other = (augment(batch, free, wanted, BLANK, np.random.default_rng(s)).ids for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.fixture
def read(attached, task, text, monkeypatch):
    """Return a function that trains and returns the batches that the model was given."""

    def run(seed: int, **options) -> list[Batch]:
        seen: list[Batch] = []
        predict = task.predict

        def note(model, batch):
            seen.append(batch)
            return predict(model, batch)

        with monkeypatch.context() as patched:
            patched.setattr(task, "predict", note)
            attached.write(SHARED, attached.initial[SHARED])
            train(attached, SHARED, task, text, Training(steps=6, batch=4, **options), seed=seed)
        return seen

    return run


def test_a_clients_own_words_and_the_first_mark_are_never_touched(read, task):
    plain, changed = read(0), read(0, augmentation={"drop": 0.3, "swap": 0.3, "replace": 0.3})
    differ = 0
    for before, after in zip(plain, changed, strict=True):
        assert torch.equal(before.labels, after.labels)
        own = before.labels != IGNORED
        assert torch.equal(before.ids[own], after.ids[own])
        assert torch.equal(after.ids[own], after.labels[own])
        assert torch.equal(before.ids[:, 0], after.ids[:, 0])
        differ += int((before.ids != after.ids).sum())
    assert differ > 20


def test_it_changes_anew_in_every_pass_and_alike_for_one_seed(read):
    wanted = {"augmentation": {"drop": 0.5}}
    one, same, other = read(0, **wanted), read(0, **wanted), read(1, **wanted)
    assert all(torch.equal(a.ids, b.ids) for a, b in zip(one, same, strict=True))
    assert not all(torch.equal(a.ids, b.ids) for a, b in zip(one, other, strict=True) if a.ids.shape == b.ids.shape)
    # Two passes over the same eleven windows: 4 + 4 + 3 and again.
    rows = [{tuple(row.tolist()) for batch in one[i : i + 3] for row in batch.ids} for i in (0, 3)]
    assert rows[0] != rows[1]


def test_a_dropped_word_is_the_unknown_piece_or_padding(read, task):
    tokenizer = task.base.tokenizer
    blank = tokenizer.unk_token_id if tokenizer.unk_token_id is not None else tokenizer.pad_token_id
    (before, *_), (after, *_) = read(0), read(0, augmentation={"drop": 0.9})
    assert set(after.ids[before.ids != after.ids].tolist()) == {blank}
