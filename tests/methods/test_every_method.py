"""Every registered method on both kinds of model: it learns, leaves the base alone, is kept, and federates."""

from hashlib import sha256

import numpy as np
import pytest
import torch

from fedpeft.adapters import Adapter
from fedpeft.adapters.update import Update
from fedpeft.base.quantize import quantize
from fedpeft.codecs import RingCodec
from fedpeft.data.examples import Examples
from fedpeft.data.windows import Windows
from fedpeft.methods import Attached, Method, parse_method
from fedpeft.methods.attached import SHARED
from fedpeft.methods.method import CAUSAL, CLASSIFICATION, known_methods
from fedpeft.tasks.classification import Classification
from fedpeft.tasks.next_word import NextWord
from fedpeft.training import Training, train
from fedpeft.training.evaluate import mean_loss
from tests.methods import tiny

SMALL = {"rank": 4, "size": 8, "length": 4, "density": 0.05, "hidden": 16}
"""Settings for the tiny models, where a method has a field of that name."""

CASES = [(name, task) for name in known_methods() for task in (CAUSAL, CLASSIFICATION)]
RATE = {CAUSAL: 2e-2, CLASSIFICATION: 4e-3}


def method_for(name: str) -> Method:
    fields = known_methods()[name].model_fields
    settings = {**SMALL, "rank": 1} if name == "compacter" else SMALL
    return parse_method({"name": name, **{k: v for k, v in settings.items() if k in fields}})


def attach(method: Method, task: str):
    """Return a task over a new tiny model with the method on it, both with seed 0."""
    model = tiny.llama() if task == CAUSAL else tiny.bert()
    base = tiny.base_of(model)
    if method.precision != "full":
        quantize(model, method.precision, keep=base.head)
    attached = Attached(base, method, None, seed=0)
    made = NextWord(base, None, 16) if task == CAUSAL else Classification(base, None, 16)
    return made, attached


def examples(task: str, seed: int, rows: int = 12):
    """Return something that can be learnt: repeating pieces, or a class that a piece gives away."""
    rng = np.random.default_rng(seed)
    if task == CAUSAL:
        ids = np.tile(rng.integers(3, 20, (rows, 4)), (1, 3)).astype(np.int32)
        return Windows(ids, ids.copy())
    classes = rng.integers(0, tiny.LABELS, rows)
    ids = rng.integers(20, tiny.VOCABULARY, (rows, 12)).astype(np.int32)
    ids[:, 1:4] = 5 + classes[:, None]
    return Examples(ids, np.ones_like(ids, bool), classes, 0, tiny.LABELS)


def weights(attached: Attached) -> str:
    """Hash the base's own tensors."""
    own = {id(p) for p in attached._slots[SHARED].parameters.values()}
    hashed = sha256()
    for parameter in attached.model.parameters():
        if id(parameter) not in own and not any(parameter is c for c in attached._slots[SHARED].context.values()):
            hashed.update(parameter.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()


def logits(task, attached, of) -> np.ndarray:
    with torch.no_grad():
        (batch,) = list(task.batches(of, np.arange(len(of)), len(of)))
        return task.predict(attached.model, batch)[0].numpy()


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_method_learns_is_kept_and_federates(name, kind, tmp_path):
    method = method_for(name)
    if kind not in method.tasks:
        pytest.skip("refused: see test_a_method_for_another_task_is_refused_by_name")
    task, attached = attach(method, kind)
    base = weights(attached)
    rate = RATE[kind] if name != "full" else 2e-3
    training = Training(steps=25, batch=12, learning_rate=rate, head_factor=1.0)

    # Two clients from one start, summed as integers of a ring.
    start, before, updates = attached.read(SHARED), {}, []
    ring = RingCodec(16, 1.0, 2)
    for client in (1, 2):
        own = examples(kind, client)
        attached.write(SHARED, start)
        before[client] = mean_loss(attached, task, own)
        train(attached, SHARED, task, own, training, seed=client)
        assert mean_loss(attached, task, own) < before[client], "training must lower the loss"
        update = Update.weighted(attached.read(SHARED) - start, 1.0, {})
        updates.append(ring.encode(update.vector, np.random.default_rng(client)).astype(np.uint64))
    mean = (ring.decode(sum(updates), 2) / 2).astype(np.float32)
    assert np.isfinite(mean).all()
    attached.write(SHARED, start + mean)
    together = {client: mean_loss(attached, task, examples(kind, client)) for client in before}
    assert sum(together.values()) < sum(before.values()), "their mean must be better than the start"

    # The base is what it was, and comes back when the method is switched off.
    assert weights(attached) == base
    trained = logits(task, attached, examples(kind, 3))

    # Saved and read into a new model, it says the same.
    attached.adapter(SHARED, attached.read(SHARED)).save(tmp_path / "adapter")
    again_task, again = attach(method, kind)
    kept = Adapter.load(tmp_path / "adapter", attached.base.fingerprint)
    assert kept.schema == again.schemas[SHARED]
    again.write(SHARED, kept.vector)
    np.testing.assert_allclose(logits(again_task, again, examples(kind, 3)), trained, atol=1e-6)

    attached.activate()
    bare_task, bare = attach(parse_method({"name": "lora"}), kind)
    if method.precision == "full":
        bare.activate()
        assert np.array_equal(logits(task, attached, examples(kind, 3)), logits(bare_task, bare, examples(kind, 3)))


@pytest.mark.parametrize("name", sorted(known_methods()))
def test_a_method_for_another_task_is_refused_by_name(name):
    method = method_for(name)
    for kind in {CAUSAL, CLASSIFICATION} - method.tasks:
        with pytest.raises(Exception, match=name):
            attach(method, kind)
