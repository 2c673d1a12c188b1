"""Data and base are opened together, because each decides something of the other."""

from pathlib import Path

import pytest

from fedpeft.errors import BaseError, DataError, FedpeftError, ScenarioError
from fedpeft.tasks import TASKS, open_task
from fedpeft.tasks.classification import Classification
from fedpeft.tasks.next_word import NextWord


def test_next_words_are_predicted_by_a_language_model_without_a_head():
    task = open_task("next_word", "keyboard", "keyboard", "float32", "full", 32, 3)
    assert isinstance(task, NextWord)
    assert (task.base.head, task.base.labels, task.name) == ((), None, "keyboard")
    own = task.splits(task.client_ids()[0])
    assert own.train.ids.shape == (3, 32)


def test_classes_are_named_by_an_encoder_with_a_head_for_all_of_them(encoder: Path, people: Path):
    task = open_task("classification", str(people), str(encoder), "float32", "full", 6, 4)
    assert isinstance(task, Classification)
    assert task.base.labels == 4
    assert task.base.model.classifier.out_features == 4
    own = task.splits(task.client_ids()[0])
    assert len(own.train) == 4
    assert own.train.ids.shape[1] <= 6


def test_a_quantized_base_is_opened_as_such(encoder: Path, people: Path):
    task = open_task("classification", str(people), str(encoder), "float32", "int8", 6)
    assert task.base.precision == "int8"


@pytest.mark.parametrize(
    ("kind", "data", "base", "error", "message"),
    [
        ("classify", "intents", "minilm", ScenarioError, "task.kind: found 'classify', expected a known task; did you"),
        ("next_word", "intents", "keyboard", DataError, "data.federation: found 'intents', expected "),
        ("classification", "keyboard", "minilm", DataError, "data.federation: found 'keyboard', expected "),
        ("classification", "PEOPLE", "keyboard", BaseError, "base.name: found 'keyboard', expected an encoder"),
        ("next_word", "keyboard", "ENCODER", BaseError, "base.name: found 'ENCODER', expected a causal language model"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_field(
    kind: str, data: str, base: str, error: type[FedpeftError], message: str, encoder: Path, people: Path
):
    real = {"PEOPLE": str(people), "ENCODER": str(encoder)}
    with pytest.raises(error) as refused:
        open_task(kind, real.get(data, data), real.get(base, base), "float32", "full", 32)
    assert str(refused.value).startswith(message.replace("ENCODER", real["ENCODER"]))


def test_there_are_five():
    assert TASKS == ("next_word", "chat", "classification", "reply_ranking", "caption")
