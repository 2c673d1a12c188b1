"""The real thing: one person's real messages, the keyboard base of a real run, torch to train, onnxruntime to judge."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from fedpeft.base import load_base
from fedpeft.base.locate import BUILTIN
from fedpeft.cli import edge
from fedpeft.cli.client import client
from fedpeft.data import Client
from fedpeft.data.stored import StoredFederation
from fedpeft.data.windows import IGNORED, windows
from fedpeft.device import EdgeClient, LoadedAdapter
from fedpeft.device.edge.example import Written
from fedpeft.device.edge.policy import ANYTIME
from fedpeft.device.sampling import softmax
from fedpeft.errors import BaseError, DataError
from fedpeft.personalization.on_device import OnDevice
from fedpeft.training import Training
from tests.device.edge.conftest import persons_messages

QUICK = OnDevice(training=Training(steps=25, batch=8, learning_rate=2e-3))
PROMPTS = ("I am ", "what do you ", "haha ", "yeah I ", "do you ", "I ")


@pytest.fixture
def device(smoke_run: Path, tmp_path: Path) -> EdgeClient:
    folder = smoke_run / "device"
    opened = EdgeClient(tmp_path / "me", folder / "base", folder / "adapters" / "global", policy=ANYTIME)
    opened.agree()
    return opened


def held_out_loss(client: EdgeClient, adapter: LoadedAdapter | None) -> float:
    """Score the latest text, which training never sees, on the ONNX graph; in nats per token."""
    split = Client.of(StoredFederation(client.store, "me"), "me").split
    encoded = windows(split.test, load_base("keyboard").tokenizer, 64)
    total, count = 0.0, 0
    for ids, labels in zip(encoded.ids, encoded.labels, strict=True):
        chances = softmax(client.runtime.logits(ids.tolist(), adapter))[:-1]
        counted = labels[1:] != IGNORED
        total -= float(np.log(chances[counted, labels[1:][counted]]).sum())
        count += int(counted.sum())
    return total / count


def test_a_person_who_wrote_is_suggested_other_words_and_their_latest_text_is_less_surprising(device):
    device.store.extend(persons_messages("user-02", 500))
    start = device.adapter
    before = {prompt: device.suggest(prompt) for prompt in PROMPTS}
    learned = device.personalize(QUICK)
    after = {prompt: device.suggest(prompt) for prompt in PROMPTS}
    assert after != before
    assert learned.gate > 0
    assert learned.after < learned.before - 0.05
    # onnxruntime, on the exported bundle, says the same as torch did on what it trained.
    assert held_out_loss(device, start) == pytest.approx(learned.before, abs=0.01)
    assert held_out_loss(device, device.adapter) == pytest.approx(learned.after, abs=0.01)

    # What is deleted is unlearnt: the same text in the store gives the same adapter, however it came there.
    words = [[s.word for s in found] for found in after.values()]
    stranger = device.store.extend([Written("zyxomma zyxomma zyxomma") for _ in range(30)])
    for id_ in stranger:
        device.store.delete(id_)
    device.personalize(QUICK)
    assert [[s.word for s in device.suggest(prompt)] for prompt in PROMPTS] == words


def test_the_command_line_trains_the_same_device(device, smoke_run, monkeypatch):
    monkeypatch.setattr(edge, "torch_trainer", lambda: OnDevice(training=Training(steps=3)))
    device.store.extend(persons_messages("user-03", 200))
    home, runs = device.home.folder, smoke_run.parent
    options = ["personalize", "--home", str(home), "--run", smoke_run.name, "--runs", str(runs), "--now", "--json"]
    done = CliRunner().invoke(client, options)
    assert done.exit_code == 0, done.exception
    assert json.loads(done.stdout)["steps"] == 3
    assert device.personal
    assert CliRunner().invoke(client, ["forget", "--home", str(home)]).exit_code == 0
    assert not device.personal


def test_too_little_text_is_said_in_one_line_and_what_answered_still_does(device):
    before = device.suggest("I am ")
    device.add("hello")
    with pytest.raises(DataError, match="write some more"):
        device.personalize(QUICK)
    assert device.suggest("I am ") == before


def test_weights_that_are_not_the_bundles_are_refused(device, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(BUILTIN / "keyboard", other)
    weights = load_file(other / "model.safetensors")
    first = min(weights)
    weights[first] = weights[first] + 1
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    device.add("hello")
    with pytest.raises(BaseError, match="bundle was exported from"):
        device.personalize(OnDevice(base=str(other)))
