"""Which reply is this person's: in-batch negatives, distractors of the same person, gradients in parts, every method."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedpeft.adapters.algebra import cat
from fedpeft.base import load_base
from fedpeft.data import load_federation
from fedpeft.data.pairs import pairs
from fedpeft.data.split import temporal_split
from fedpeft.methods import Attached, parse_method
from fedpeft.methods.attached import PRIVATE, SHARED
from fedpeft.methods.method import CLASSIFICATION, known_methods
from fedpeft.tasks import open_task
from fedpeft.tasks.open import held
from fedpeft.tasks.ranking import CANDIDATES, Ranking, drawn
from fedpeft.training import Training, evaluate, train
from fedpeft.training.objective import Objective

from .encoder import write_talkers

LORA = {"name": "lora", "rank": 2, "targets": ["query", "value"]}


@pytest.fixture(scope="module")
def talkers(tmp_path_factory):
    return write_talkers(tmp_path_factory.mktemp("talkers"))


@pytest.fixture
def task(encoder, talkers) -> Ranking:
    return open_task("reply_ranking", str(talkers), str(encoder), "float32", "full", 16)


def attach(task: Ranking, settings: dict = LORA, private: bool = False) -> Attached:
    method = parse_method(settings)
    return Attached(task.base, method, method.private(2) if private else None, seed=0)


def said_by(talkers, client: str, part: str) -> list:
    return pairs(getattr(temporal_split(load_federation(str(talkers)).conversations(client)), part))


def alone(task: Ranking, text: str) -> torch.Tensor:
    """Return the mean of a text's own last hidden states, without any padding."""
    ids = torch.tensor([task.base.tokenizer(text, truncation=True, max_length=16)["input_ids"]])
    with torch.no_grad():
        return task.base.model(input_ids=ids).last_hidden_state[0].mean(0)


def test_logits_are_twenty_times_the_cosines_of_texts_that_are_read_alone(task, talkers):
    splits = task.splits("talker-1")
    found = said_by(talkers, "talker-1", "test")
    assert len(found) == len(splits.test)
    (batch,) = task.batches(splits.test, np.arange(4), 4)
    logits, targets = task.predict(task.base.model, batch)
    assert logits.shape == (4, CANDIDATES)
    assert targets.tolist() == [CANDIDATES - 1] * 4
    different = {tuple(task.base.tokenizer(p.reply)["input_ids"]): p.reply for p in found}
    for row in range(4):
        task.base.tokenizer.truncation_side = "left"
        context = alone(task, found[row].context)
        task.base.tokenizer.truncation_side = "right"
        ids = splits.test.replies.ids[splits.test.drawn[row]]
        replies = [different[tuple(int(i) for i in reply if i)] for reply in ids]
        assert replies[-1] == found[row].reply
        theirs = torch.stack([20 * F.cosine_similarity(context, alone(task, reply), dim=0) for reply in replies])
        assert (logits[row] - theirs).abs().max() < 1e-4


def test_a_batchs_other_replies_are_the_negatives_and_equal_ones_count_once(task):
    train_ = task.splits("talker-0").train
    twice = np.flatnonzero(train_.own == train_.own[0])[:1]
    order = np.array([0, *twice, 1, 2, 3])
    (batch,) = task.batches(train_, order, 5)
    different = len({int(i) for i in train_.own[order]})
    assert batch.labels.shape == (5, different)
    assert len(batch.replies[0]) == different
    for row, own in zip(batch.labels, train_.own[order], strict=True):
        assert sorted(row.tolist()) == list(range(different))
        ids = batch.replies[0][row[-1]]
        assert [i for i in ids.tolist() if i] == [int(i) for i in train_.replies.ids[own] if i]


def test_held_out_contexts_are_told_from_nine_other_replies_of_the_same_person_and_part(task, talkers):
    for client in task.client_ids():
        for part in ("validation", "test"):
            found = getattr(task.splits(client), part)
            assert len(found.replies) == len({p.reply for p in said_by(talkers, client, part)})
            assert found.drawn.shape == (len(found), CANDIDATES)
            assert (found.drawn[:, -1] == found.own).all()
            assert all(len(set(row)) == CANDIDATES for row in found.drawn.tolist())
    again = task.splits("talker-0").test.drawn
    assert (again == task.splits("talker-0").test.drawn).all()
    assert len({int(i) for row in again for i in row[:-1]}) > CANDIDATES


def test_who_has_fewer_than_ten_different_replies_in_a_split_is_not_scored_on_it(task):
    test = task.splits("talker-0").test
    few = type(test)(test.contexts, type(test.replies)(test.replies.ids[:9], test.replies.mask[:9]), test.own % 9)
    assert len(drawn(few, np.random.default_rng(0))) == 0
    assert evaluate(attach(task), task, drawn(few, np.random.default_rng(0))).tokens == 0


def test_a_long_context_loses_its_beginning_and_a_long_reply_its_end(encoder, talkers):
    short = open_task("reply_ranking", str(talkers), str(encoder), "float32", "full", 5)
    found, train_ = said_by(talkers, "talker-2", "train"), short.splits("talker-2").train
    tokenizer = short.base.tokenizer
    last = max(range(len(found)), key=lambda i: len(found[i].context))
    words = tokenizer(found[last].context, add_special_tokens=False)["input_ids"]
    assert train_.contexts.ids[last].tolist() == [2, *words[-3:], 3]
    reply = tokenizer(found[last].reply, add_special_tokens=False)["input_ids"]
    assert train_.replies.ids[train_.own[last]].tolist() == [2, *reply[:3], 3]


def test_gradients_of_parts_add_up_to_the_batchs(task):
    attached = attach(task)
    parameters = attached.parameters(SHARED)
    objective = Objective(attached, SHARED, task, Training(steps=1))
    (batch,) = task.batches(task.splits("talker-0").train, np.arange(8), 8)

    def gradient(size: int) -> torch.Tensor:
        for parameter in parameters:
            parameter.grad = None
        for start in range(0, 8, size):
            objective.backward(batch.rows(start, start + size), size / 8)
        return torch.cat([p.grad.flatten() for p in parameters])

    whole = gradient(8)
    assert whole.abs().max() > 0
    assert (gradient(2) - whole).abs().max() < 1e-6


def test_training_finds_more_of_a_persons_replies_than_the_base_and_than_chance(task):
    splits, attached = task.splits("talker-0"), attach(task, {"name": "lora", "rank": 8, "targets": "all-linear"})
    attached.activate()
    before = evaluate(attached, task, splits.test).metrics()
    attached.activate(SHARED)
    train(attached, SHARED, task, splits.train, Training(steps=60, batch=16, learning_rate=1e-2), 0)
    after = evaluate(attached, task, splits.test).metrics()
    assert after["top1"] > before["top1"] + 0.1
    assert after["loss"] < min(before["loss"], np.log(CANDIDATES))


def test_a_private_adapter_on_top_is_exactly_the_one_adapter_that_devices_get(task, encoder):
    attached = attach(task, private=True)
    (batch,) = task.batches(task.splits("talker-3").test, np.arange(5), 5)
    vectors = {}
    for seed, slot in enumerate((SHARED, PRIVATE)):
        noise = np.random.default_rng(seed).normal(0, 0.3, attached.schemas[slot].size)
        vectors[slot] = (attached.initial[slot] + noise).astype(np.float32)
        attached.write(slot, vectors[slot])
    attached.activate(SHARED, PRIVATE)
    with torch.no_grad():
        both, _ = task.predict(attached.model, batch)
        attached.activate(SHARED)
        one, _ = task.predict(attached.model, batch)
    assert (both - one).abs().max() > 1e-2
    joined = cat([attached.adapter(slot, vectors[slot]) for slot in (SHARED, PRIVATE)], [1.0, 1.0])
    base = load_base(str(encoder), "float32", labels=0)
    alone_ = Attached(base, parse_method({**LORA, "rank": 4, "alpha": 4.0}), None, seed=1)
    assert alone_.schemas[SHARED].shapes == joined.schema.shapes
    assert joined.config["lora_alpha"] == joined.config["r"]
    alone_.write(SHARED, joined.vector)
    with torch.no_grad():
        logits, _ = task.predict(alone_.model, batch)
    assert (logits - both).abs().max() < 1e-4


ENCODERS = [name for name, method in known_methods().items() if CLASSIFICATION in method.tasks]
STACKED = {"adapter_fusion"}  # it stands on adapters of its own, see tests/methods/test_fusion.py


@pytest.mark.parametrize("name", sorted({*ENCODERS} - STACKED))
def test_methods_for_encoders_learn_without_a_head(task, name):
    precision = parse_method({"name": name}).precision
    task = task if precision == "full" else held(task, "float32", precision)
    attached = attach(task, {"name": name})
    start = attached.read(SHARED)
    trained = train(attached, SHARED, task, task.splits("talker-0").train, Training(steps=2, batch=8), 0)
    assert np.isfinite(trained.loss)
    assert not np.array_equal(attached.read(SHARED), start)
