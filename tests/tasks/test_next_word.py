"""What a language model is given of a person's text, and which of it counts."""

import numpy as np
import pytest
import torch

from fedpeft.data import load_federation
from fedpeft.data.windows import IGNORED, Windows
from fedpeft.tasks import Batch
from fedpeft.tasks.next_word import NextWord


@pytest.fixture(scope="module")
def task(base) -> NextWord:
    return NextWord(base, load_federation("keyboard"), 32)


@pytest.fixture(scope="module")
def text(task) -> Windows:
    return task.splits("user-05").test.head(11)


def test_a_batch_is_cut_behind_its_last_label_and_loses_none(task, text):
    order = np.random.default_rng(0).permutation(len(text))
    seen = 0
    for batch in task.batches(text, order, 4):
        rows = order[seen : seen + len(batch.ids)]
        length = batch.ids.shape[1]
        assert batch.ids.shape == batch.labels.shape
        assert np.array_equal(batch.ids.numpy(), text.ids[rows, :length])
        assert np.array_equal(batch.labels.numpy(), text.labels[rows, :length])
        assert (text.labels[rows, length:] == IGNORED).all()
        assert (batch.labels[:, -1] != IGNORED).any()
        seen += len(rows)
    assert seen == len(text)


def test_evaluation_reads_the_windows_with_the_last_labels_first(task, text):
    order = task.order(text)
    assert sorted(order) == list(range(len(text)))
    last = [int(np.flatnonzero(text.labels[i] != IGNORED).max()) for i in order]
    assert last == sorted(last, reverse=True)
    assert task.order(text.head(0)).tolist() == []


def test_features_under_the_head_are_the_predictions(task, text):
    (batch,) = task.batches(text, np.arange(len(text)), 99)
    with torch.no_grad():
        hidden, head, targets = task.features(task.base.model, batch)
        logits, same = task.predict(task.base.model, batch)
    assert head is task.base.model.get_output_embeddings()
    assert hidden.shape == (text.tokens, task.base.model.config.hidden_size)
    assert torch.equal(head(hidden).float(), logits)
    assert torch.equal(targets, same)
    assert logits.dtype == torch.float32


def test_only_context_may_be_changed_never_what_is_predicted_the_first_mark_or_what_nobody_reads(task):
    labels = torch.tensor([[IGNORED, IGNORED, 7, IGNORED, 8, IGNORED, IGNORED], [IGNORED] * 3 + [9] + [IGNORED] * 3])
    free = task.replaceable(Batch(torch.arange(14).reshape(2, 7), labels))
    assert free.tolist() == [
        [False, True, False, True, False, False, False],
        [False, True, True, False, False, False, False],
    ]


def test_only_the_latest_training_windows_are_kept(base):
    federation = load_federation("keyboard")
    everything, few = (NextWord(base, federation, 32, most).splits("user-05") for most in (None, 3))
    assert np.array_equal(few.train.ids, everything.train.ids[-3:])
    assert np.array_equal(few.train.labels, everything.train.labels[-3:])
    for part in ("validation", "test"):
        assert np.array_equal(getattr(few, part).ids, getattr(everything, part).ids)
    assert few.messages == everything.messages
