"""What an adapter has learnt of a person's text is still there when the base under it is quantized."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from fedpeft.adapters import Adapter
from fedpeft.base import Base
from fedpeft.data.windows import Windows
from fedpeft.device import Runtime
from fedpeft.errors import DataError
from fedpeft.export import ExportOptions, export_adapter, export_base
from fedpeft.export.gain import Gain, graph_gain, graph_loss, kept, mean_gain
from fedpeft.methods import Attached, parse_method
from fedpeft.methods.attached import SHARED
from fedpeft.signing.signature import SigningKey
from fedpeft.tasks.open import open_task
from fedpeft.training import Training, train
from fedpeft.training.evaluate import mean_loss

KEY = SigningKey.from_private_bytes(bytes(32))
PEOPLE = ("user-03", "user-07")
"""Of the keyboard federation. One person's test text is a thousand tokens, which leaves 5 % to chance: they are pooled."""


@dataclass(frozen=True)
class Person:
    name: str
    base: Base
    adapter: Adapter
    test: Windows
    trained: Gain


@pytest.fixture(scope="module")
def people(base) -> list[Person]:
    torch.set_num_threads(1)
    found = []
    for client in PEOPLE:
        task = open_task("next_word", "keyboard", "keyboard", "float32", "full", 64)
        attached = Attached(task.base, parse_method({"name": "lora", "rank": 8}), None, seed=0)
        own = task.splits(client)
        attached.activate()
        without = mean_loss(attached, task, own.test)
        attached.activate(SHARED)
        train(attached, SHARED, task, own.train, Training(steps=60, learning_rate=3e-3), seed=0)
        with_it = mean_loss(attached, task, own.test)
        adapter = attached.adapter(SHARED, attached.read(SHARED))
        found.append(Person(client, task.base, adapter, own.test, Gain(without, with_it)))
    return found


@pytest.mark.parametrize(
    ("precision", "share"), [("float32", 0.999), ("int8", 0.95), ("int4", 0.95), ("dynamic-int8", 0.95)]
)
def test_an_adapters_gain_survives_quantization(people, tmp_path, precision, share):
    manifest = export_base(people[0].base, tmp_path / "base", key=KEY, options=ExportOptions(precision=precision))
    runtime, gains = Runtime(tmp_path / "base"), []
    for person in people:
        export_adapter(person.adapter, tmp_path / person.name, owner=person.name, base=manifest, key=KEY)
        gains.append(graph_gain(runtime, runtime.load(tmp_path / person.name), person.test))
    found, expected = mean_gain(gains), mean_gain(person.trained for person in people)
    print(f"{precision}: gain {found.nats:.4f} of {expected.nats:.4f} nats, {kept(found, expected):.1%}")
    assert min(person.trained.nats for person in people) > 0.05
    assert kept(found, expected) >= share
    if precision == "float32":  # torch's own losses, of the same text
        for gain, person in zip(gains, people, strict=True):
            assert gain.without == pytest.approx(person.trained.without, abs=1e-4)
            assert gain.with_it == pytest.approx(person.trained.with_it, abs=1e-4)


def test_where_nothing_was_gained_nothing_can_be_kept():
    assert kept(Gain(3.0, 2.5), Gain(3.0, 2.0)) == 0.5
    assert kept(Gain(3.0, 3.5), Gain(3.0, 2.0)) == -0.5
    assert kept(Gain(3.0, 2.5), Gain(3.0, 3.0)) is None
    assert mean_gain([Gain(3.0, 2.0), Gain(5.0, 5.0)]) == Gain(4.0, 3.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            Windows(np.ones((1, 4), np.int32), np.full((1, 4), -100, np.int32)),
            "text to score: found 'nothing to predict', expected at least one piece of a person's own",
        ),
        (
            Windows(*(np.ones((1, 4), np.int32) for _ in range(3))),
            "text to score: found 'several examples to a row', expected one; data.packing = false",
        ),
    ],
)
def test_text_that_a_graph_cannot_score_is_refused(text, message):
    with pytest.raises(DataError) as refused:
        graph_loss(None, None, text)
    assert str(refused.value) == message
