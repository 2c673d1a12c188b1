"""A tiny vision-language model reads pictures, learns from captions, and federates."""

import numpy as np
import pytest
import torch

from fedpeft.base.vision import load_vision
from fedpeft.codecs import RingCodec
from fedpeft.data.pictures import Shapes
from fedpeft.data.windows import IGNORED
from fedpeft.methods import Attached, parse_method
from fedpeft.methods.attached import SHARED
from fedpeft.tasks.caption import Caption
from fedpeft.training import Training, evaluate, train


@pytest.fixture(scope="module")
def task() -> Caption:
    return Caption(load_vision("tiny-llava"), Shapes(), 16)


@pytest.fixture(scope="module")
def attached(task) -> Attached:
    return Attached(task.base, parse_method({"name": "lora", "rank": 4}), None, seed=0)


@pytest.fixture(autouse=True)
def fresh(attached) -> None:
    attached.activate(SHARED)
    attached.write(SHARED, attached.initial[SHARED])


def test_lora_lies_on_the_image_tower_and_on_the_writer(attached):
    names = attached.schemas[SHARED].names()
    assert any("vision_tower" in name for name in names)
    assert any("language_model" in name for name in names)


def test_only_the_words_are_predicted(task):
    own = task.splits("person-00").train
    (batch,) = list(task.batches(own, np.arange(3), 3))
    image = batch.ids == task.base.model.config.image_token_id
    assert int(image.sum()) == 3 * (32 // 8) ** 2
    assert (batch.labels[image] == IGNORED).all()
    logits, targets = task.predict(task.base.model, batch)
    assert len(logits) == len(targets) == int((batch.labels[:, 1:] != IGNORED).sum())


def test_the_logits_are_the_whole_models(task, attached):
    own = task.splits("person-01").test.head(2)
    (batch,) = list(task.batches(own, np.arange(2), 2))
    with torch.no_grad():
        whole = attached.model(input_ids=batch.ids, pixel_values=batch.pixels).logits[:, :-1]
        ours, _ = task.predict(attached.model, batch)
    torch.testing.assert_close(ours, whole[batch.labels[:, 1:] != IGNORED], atol=1e-5, rtol=0)


def test_what_is_seen_matters_after_training(task, attached):
    """The loss with the right pictures is lower than with pictures in another order: the words come from the image."""
    own = task.splits("person-02")
    before = evaluate(attached, task, own.test).metrics()["loss"]
    train(attached, SHARED, task, own.train, Training(steps=60, batch=12, learning_rate=5e-3), seed=0)
    right = evaluate(attached, task, own.test).metrics()["loss"]
    shuffled = type(own.test)(own.test.ids, own.test.labels, np.roll(own.test.pixels, 1, axis=0))
    assert right < 0.5 * before
    assert evaluate(attached, task, shuffled).metrics()["loss"] > 1.2 * right


def test_two_clients_federate_to_something_better_than_the_base(task, attached):
    training = Training(steps=8, batch=12, learning_rate=3e-3)
    ring = RingCodec(16, 0.1, 2)
    start, levels = attached.read(SHARED), []
    before = {
        c: evaluate(attached, task, task.splits(c).validation).metrics()["loss"] for c in ("person-03", "person-04")
    }
    for number, client in enumerate(before):
        attached.write(SHARED, start)
        train(attached, SHARED, task, task.splits(client).train, training, seed=number)
        levels.append(ring.encode(attached.read(SHARED) - start, np.random.default_rng(number)).astype(np.uint64))
    mean = (ring.decode(sum(levels), 2) / 2).astype(np.float32)
    assert np.isfinite(mean).all()
    attached.write(SHARED, start + mean)
    for client, loss in before.items():
        assert evaluate(attached, task, task.splits(client).validation).metrics()["loss"] < loss - 0.5


def test_a_client_without_pictures_has_nothing_to_train_on(task):
    class Nobody(Shapes):
        def pictures(self, client_id: str):
            return []

    own = Caption(task.base, Nobody(), 16).splits("person-00")
    assert (own.train.tokens, len(own.test), own.messages) == (0, 0, 0)
