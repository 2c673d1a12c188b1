"""What an adapter has learnt of a person's text is still there when the base under it is quantized."""

from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
import pytest
import torch

from fedpeft.adapters import Adapter
from fedpeft.base import Base
from fedpeft.data.windows import IGNORED, Windows
from fedpeft.export import ExportOptions, export_adapter, export_base
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
    base: Base
    adapter: Adapter
    test: Windows
    without: float
    with_it: float


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
        found.append(Person(task.base, attached.adapter(SHARED, attached.read(SHARED)), own.test, without, with_it))
    return found


def loss(session: ort.InferenceSession, facts, test: Windows, adapter: ort.LoraAdapter | None) -> float:
    options = ort.RunOptions()
    if adapter is not None:
        options.add_active_adapter(adapter)
    ids = test.ids.astype(np.int64)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    for i in range(facts.layers):
        for part in ("key", "value"):
            shape = (len(ids), facts.kv_heads, 0, facts.head_dim)
            feeds[f"past_key_values.{i}.{part}"] = np.zeros(shape, np.float32)
    logits, targets = session.run(["logits"], feeds, options)[0][:, :-1], test.labels[:, 1:]
    own = targets != IGNORED
    scores = torch.log_softmax(torch.from_numpy(logits[own]), -1).numpy()
    return float(-np.take_along_axis(scores, targets[own].astype(np.int64)[:, None], 1).mean())


@pytest.mark.parametrize(
    ("precision", "kept"), [("float32", 0.999), ("int8", 0.95), ("int4", 0.95), ("dynamic-int8", 0.95)]
)
def test_an_adapters_gain_survives_quantization(people, tmp_path, precision, kept):
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    gains, expected = [], [person.without - person.with_it for person in people]
    manifest = export_base(people[0].base, tmp_path / "base", key=KEY, options=ExportOptions(precision=precision))
    session = ort.InferenceSession(tmp_path / "base" / "model.onnx", options)
    for person in people:
        export_adapter(person.adapter, tmp_path / "ada", owner="ada", base=manifest, key=KEY)
        handle = ort.LoraAdapter()
        handle.Load(str(tmp_path / "ada" / "adapter.onnx_adapter"))
        before, after = (loss(session, manifest.decoder, person.test, a) for a in (None, handle))
        gains.append(before - after)
    print(f"{precision}: gain {sum(gains):.4f} of {sum(expected):.4f} nats, {sum(gains) / sum(expected):.1%}")
    assert min(expected) > 0.05
    assert sum(gains) >= kept * sum(expected)
