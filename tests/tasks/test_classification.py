"""One head for the classes of all tasks is one head per task; what is not a client's task is nobody's answer."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedpeft.base import load_base
from fedpeft.data import load_labelled
from fedpeft.data.examples import Examples
from fedpeft.data.labelled import split_of
from fedpeft.data.published import Union
from fedpeft.errors import ScenarioError
from fedpeft.methods import Attached
from fedpeft.methods.attached import SHARED
from fedpeft.methods.lora import Lora
from fedpeft.tasks import Batch
from fedpeft.tasks.classification import Classification
from fedpeft.training import evaluate

from .encoder import ABOUT

POOLINGS = pytest.mark.parametrize("pooling", ["mean", "model"])


@pytest.fixture(scope="module")
def union(people, tmp_path_factory) -> Union:
    """Return two tasks together, of four and of two classes."""
    other = tmp_path_factory.mktemp("other")
    lines = [json.dumps({"text": f"{word} now", "label": "yn"[i % 2]}) for i, word in enumerate(["want", "new"] * 10)]
    (other / "zoe.jsonl").write_text("\n".join(lines))
    return Union([load_labelled(str(people)), load_labelled(str(other))], "both")


@pytest.fixture(scope="module")
def classifier(encoder):
    """Return a function that opens a task over the tiny encoder."""

    def make(federation, pooling="mean", **options) -> Classification:
        base = load_base(str(encoder), "float32", labels=len(federation.labels()))
        return Classification(base, federation, 12, pooling=pooling, **options)

    return make


@POOLINGS
def test_a_clients_logits_are_those_of_a_head_that_only_its_task_has(union, classifier, pooling):
    task = classifier(union, pooling)
    with torch.no_grad():
        task.base.model.classifier.weight.normal_(generator=torch.Generator().manual_seed(0))
    weight, bias = task.base.model.classifier.weight, task.base.model.classifier.bias
    groups = list(union.groups().values())
    assert groups == [(0, 4), (4, 6)]
    for client, (first, last) in (("person-1", groups[0]), ("zoe", groups[1])):
        (batch,) = task.batches(task.splits(client).train, np.arange(5), 5)
        separate = classifier(union, pooling).base.model
        separate.classifier = torch.nn.Linear(32, last - first)
        with torch.no_grad():
            separate.classifier.weight.copy_(weight[first:last])
            separate.classifier.bias.copy_(bias[first:last])
            logits, targets = task.predict(task.base.model, batch)
            alone, _ = task.predict(separate, Batch(batch.ids, batch.labels - first, batch.mask))
        assert logits.shape == (5, last - first)
        torch.testing.assert_close(logits, alone, atol=1e-6, rtol=0)
        assert (targets + first).tolist() == batch.labels[:, 0].tolist()


def test_what_another_tasks_client_learns_leaves_ones_own_rows_alone(union, classifier):
    task = classifier(union)
    task.base.model.classifier.requires_grad_(True)
    (batch,) = task.batches(task.splits("zoe").train, np.arange(4), 4)
    F.cross_entropy(*task.predict(task.base.model, batch)).backward()
    moved = task.base.model.classifier.weight.grad.abs().sum(dim=1) > 0
    assert moved.tolist() == [False] * 4 + [True] * 2


@POOLINGS
def test_padding_counts_for_nothing(classification, classifier, pooling):
    task = classifier(classification.federation, pooling)
    own = task.splits("person-0").train
    short = int(own.mask.sum(axis=1).argmin())
    with torch.no_grad():
        together, _ = task.predict(task.base.model, next(iter(task.batches(own, np.arange(len(own)), 99))))
        alone, _ = task.predict(task.base.model, next(iter(task.batches(own, np.array([short]), 1))))
    torch.testing.assert_close(together[short : short + 1], alone, atol=1e-6, rtol=0)


def test_the_head_reads_the_mean_of_the_hidden_states_or_what_the_model_pools(classification, classifier):
    own = classification.splits("person-0").train
    federation = classification.federation
    (batch,) = classification.batches(own, np.array([3]), 1)
    mean, pooled = classifier(federation), classifier(federation, "model")
    model = mean.base.model
    with torch.no_grad():
        hidden = model.bert(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state[0]
        expected = model.classifier(hidden.mean(dim=0))
        torch.testing.assert_close(mean.predict(model, batch)[0][0], expected, atol=1e-6, rtol=0)
        expected = model(input_ids=batch.ids, attention_mask=batch.mask).logits
        torch.testing.assert_close(pooled.predict(model, batch)[0], expected, atol=1e-6, rtol=0)


def test_batches_are_cut_to_their_longest_text_and_hold_class_and_range(classification):
    own = classification.splits("person-2").train
    order, seen = np.random.default_rng(1).permutation(len(own)), 0
    for batch in classification.batches(own, order, 7):
        rows = order[seen : seen + 7]
        lengths = own.mask[rows].sum(axis=1)
        assert batch.ids.shape == batch.mask.shape == (len(rows), lengths.max())
        assert batch.mask.sum(dim=1).tolist() == lengths.tolist()
        assert np.array_equal(batch.ids.numpy(), own.ids[rows, : lengths.max()])
        assert batch.labels.tolist() == [[c, 0, 4] for c in own.classes[rows]]
        seen += len(rows)
    assert seen == len(own)


def test_evaluation_reads_the_longest_texts_first(classification):
    own = classification.splits("person-2").train
    lengths = own.mask.sum(axis=1)[classification.order(own)]
    assert lengths.tolist() == sorted(lengths, reverse=True)


def test_a_score_is_the_mean_over_texts_and_counts_no_keystrokes(classification, classifier):
    task = classifier(classification.federation)
    attached = Attached(task.base, Lora(rank=2), None, seed=0)
    size = attached.schemas[SHARED].size
    attached.write(SHARED, np.random.default_rng(0).normal(0, 0.5, size).astype(np.float32))
    own = task.splits("person-1").test
    (batch,) = task.batches(own, np.arange(len(own)), 99)
    with torch.no_grad():
        logits, targets = task.predict(attached.model, batch)
    tally = evaluate(attached, task, own)
    assert tally.tokens == len(own) == own.tokens
    assert tally.top1 == int((logits.argmax(dim=1) == targets).sum())
    assert tally.loss == pytest.approx(float(F.cross_entropy(logits, targets, reduction="sum")), rel=1e-5)
    assert (tally.saved, tally.characters, tally.metrics()["keystrokes_saved"]) == (0.0, 0.0, 0.0)


def test_marks_at_both_ends_and_padding_stay_when_words_are_changed(classification):
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    free = classification.replaceable(Batch(torch.zeros_like(mask), mask, mask))
    assert free.int().tolist() == [[0, 1, 1, 0, 0], [0, 1, 0, 0, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]]


def test_only_the_latest_training_texts_are_kept(classification, classifier):
    few = classifier(classification.federation, max_examples=5).splits("person-0")
    everything = classification.splits("person-0")
    assert [len(few.train), len(few.validation)] == [5, len(everything.validation)]
    assert np.array_equal(few.train.classes, everything.train.classes[-5:])
    assert few.messages == everything.messages == 40


def test_the_description_counts_and_quotes_nothing(classification):
    described = classification.describe(["person-0", "person-1"])
    splits = [split_of(classification.federation, f"person-{i}") for i in (0, 1)]
    assert (described["clients"], described["classes"]) == (2, len(ABOUT))
    for part in ("train", "validation", "test"):
        counts = [len(getattr(split, part)) for split in splits]
        expected = {"total": sum(counts), "least": min(counts), "median": np.median(counts), "most": max(counts)}
        assert described[part]["messages"] == expected
    words = {word for several in ABOUT.values() for word in several}
    assert not words & set(json.dumps(described).replace('"', " ").split())


def test_empty_parts_are_empty_batches(classification):
    nothing = Examples(np.zeros((0, 0), np.int32), np.zeros((0, 0), bool), np.zeros(0, np.int64), 0, 4)
    assert list(classification.batches(nothing, classification.order(nothing), 4)) == []


def test_a_head_of_several_layers_reads_what_the_model_pools(classification, encoder):
    """Its first layer takes the whole sequence or has a pooler of its own: a mean is not what it was made for."""
    base = load_base(str(encoder), "float32", labels=4)
    base.model.classifier = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.Linear(32, 4))
    with pytest.raises(ScenarioError, match=r"task\.pooling: found 'mean', expected 'model'"):
        Classification(base, classification.federation, 12)
    Classification(base, classification.federation, 12, pooling="model")
