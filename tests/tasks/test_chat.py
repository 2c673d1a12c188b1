"""Chats on the builtin base: packed or not, the same loss, gradients and scores."""

import numpy as np
import pytest
import torch

from fedpeft.base import load_base
from fedpeft.data import Client, load_federation
from fedpeft.data.packing import packed, padded
from fedpeft.data.replies import replies
from fedpeft.data.windows import IGNORED, Windows
from fedpeft.methods import Attached
from fedpeft.methods.attached import SHARED
from fedpeft.methods.lora import Lora
from fedpeft.tasks.chat import Chat
from fedpeft.training import Training, evaluate, train
from fedpeft.training.augment import augment
from fedpeft.training.config import Augmentation
from fedpeft.training.objective import Objective

WINDOW, CLIENT = 96, "user-17"


@pytest.fixture(scope="module")
def attached() -> Attached:
    made = Attached(load_base("keyboard", "float32"), Lora(rank=2), None, seed=0)
    rng = np.random.default_rng(0)
    made.write(SHARED, rng.normal(0, 0.05, made.schemas[SHARED].size).astype(np.float32))
    return made


@pytest.fixture(scope="module")
def tasks(attached) -> dict[bool, Chat]:
    federation = load_federation("keyboard")
    return {packing: Chat(attached.base, federation, WINDOW, packing=packing) for packing in (True, False)}


@pytest.fixture(scope="module")
def tests(tasks) -> dict[bool, Windows]:
    excerpts = Client.of(tasks[True].federation, CLIENT).split.test
    some = replies(excerpts, tasks[True].base.tokenizer, WINDOW)[-16:]
    return {True: packed(some, WINDOW, 0), False: padded(some, WINDOW, 0)}


def test_packing_takes_fewer_rows_and_loses_no_label(tests):
    assert len(tests[True]) < len(tests[False])
    labels = [sorted(own.labels[own.labels != IGNORED].tolist()) for own in tests.values()]
    assert labels[0] == labels[1]
    assert tests[True].tokens == tests[False].tokens


def test_evaluation_totals_are_those_of_rows_of_their_own(attached, tasks, tests):
    found, alone = (evaluate(attached, tasks[packing], tests[packing]) for packing in (True, False))
    assert found.loss == pytest.approx(alone.loss, rel=1e-5)
    assert (found.tokens, found.top1, found.top3) == (alone.tokens, alone.top1, alone.top3)
    assert found.saved == found.characters == 0.0


@pytest.mark.parametrize("training", [Training(steps=1), Training(steps=1, chunk=16, checkpointing=True)])
def test_loss_and_gradients_are_those_of_rows_of_their_own(attached, tasks, tests, training):
    found = []
    if training.checkpointing:
        attached.model.gradient_checkpointing_enable({"use_reentrant": False})
        attached.model.train()
    for packing, own in tests.items():
        parameters = attached.parameters(SHARED)
        (batch,) = tasks[packing].batches(own, np.arange(len(own)), len(own))
        loss = Objective(attached, SHARED, tasks[packing], training).backward(batch)
        found.append((loss, torch.cat([p.grad.flatten() for p in parameters])))
        for parameter in parameters:
            parameter.grad = None
    attached.model.eval()
    attached.model.gradient_checkpointing_disable()
    (loss, gradient), (alone, expected) = found
    assert loss == pytest.approx(alone, rel=1e-5)
    assert float((gradient - expected).norm() / expected.norm()) < 1e-4


def test_a_step_in_parts_is_the_whole_step(attached, tasks, tests):
    (batch,) = tasks[True].batches(tests[True], np.arange(4), 4)
    parts = [batch.rows(0, 3), batch.rows(3, 4)]
    assert [part.positions.shape for part in parts] == [part.ids.shape for part in parts]
    with torch.no_grad():
        whole = tasks[True].predict(attached.model, batch)[0]
        pieces = [tasks[True].predict(attached.model, part)[0] for part in parts]
    torch.testing.assert_close(torch.cat(pieces), whole, rtol=1e-4, atol=1e-4)


def test_training_is_the_same_for_one_seed_and_learns(attached, tasks, tests):
    start, own = attached.read(SHARED), tests[True]
    training = Training(steps=4, batch=2, learning_rate=3e-3)
    ends = []
    before = evaluate(attached, tasks[True], own).loss
    for _ in range(2):
        attached.write(SHARED, start)
        train(attached, SHARED, tasks[True], own, training, seed=3)
        ends.append(attached.read(SHARED))
    after = evaluate(attached, tasks[True], own).loss
    attached.write(SHARED, start)
    assert np.array_equal(*ends)
    assert after < before


def test_augmentation_changes_no_reply_and_no_beginning_and_keeps_positions(tasks, tests):
    (batch,) = tasks[True].batches(tests[True], np.arange(len(tests[True])), 99)
    free = tasks[True].replaceable(batch)
    assert free.any()
    assert not (free & (batch.labels != IGNORED)).any()
    assert not (free & (batch.positions == 0)).any()
    changed = augment(batch, free, Augmentation(replace=0.9), 0, np.random.default_rng(0))
    assert (changed.ids != batch.ids).any()
    assert torch.equal(changed.positions, batch.positions)


def test_only_the_latest_training_examples_are_kept(attached, tasks):
    few = Chat(attached.base, tasks[True].federation, WINDOW, most=5, packing=False).splits(CLIENT)
    everything = tasks[False].splits(CLIENT)
    assert np.array_equal(few.train.ids, everything.train.ids[-5:])
    assert np.array_equal(few.test.ids, everything.test.ids)
    assert few.messages == everything.messages
    in_rows = Chat(attached.base, tasks[True].federation, WINDOW, most=5).splits(CLIENT)
    assert in_rows.train.tokens == few.train.tokens
