"""The builtin base can be made again, bit for bit, from what no client wrote."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import utils as hub
from torch import are_deterministic_algorithms_enabled as is_deterministic
from transformers.utils import logging as transformers_logging

import fedpeft.base.pretrain as module
from fedpeft.base import load_base
from fedpeft.base.card import write_card
from fedpeft.base.fingerprint import fingerprint
from fedpeft.base.pretrain import PretrainConfig, Progress, deterministic, pretrain, silent
from fedpeft.data import keyboard

TINY = PretrainConfig(
    vocabulary=300, hidden=16, layers=1, heads=2, feed_forward=32, context=96, epochs=1, batch=16, length=96
)
FILES = ("model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json")


STATE = (
    torch.get_deterministic_debug_mode,
    transformers_logging.is_progress_bar_enabled,
    hub.are_progress_bars_disabled,
    lambda: os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
)
"""What pretraining sets for the whole process while it works."""


def state() -> list[object]:
    return [read() for read in STATE]


def made(out: Path, config: PretrainConfig = TINY) -> tuple[dict[str, bytes], list[Progress]]:
    heard: list[Progress] = []
    pretrain(config, out, listen=heard.append, limit=50)
    return {name: (out / name).read_bytes() for name in FILES}, heard


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> tuple[Path, dict[str, bytes], list[Progress]]:
    out = tmp_path_factory.mktemp("pretrained") / "base"
    return (out, *made(out))


def test_pretraining_twice_gives_the_same_files_bit_for_bit(first, tmp_path):
    torch.manual_seed(99)  # what other code did to the global generator does not matter
    again, _ = made(tmp_path)
    assert again == first[1]


def test_another_seed_gives_other_weights_and_the_same_tokenizer(first, tmp_path):
    other, _ = made(tmp_path, replace(TINY, seed=1))
    assert other["model.safetensors"] != first[1]["model.safetensors"]
    assert other["tokenizer.json"] == first[1]["tokenizer.json"]


def test_the_result_is_a_base_in_bfloat16(first):
    base = load_base(str(first[0]))
    assert base.dtype == torch.bfloat16
    assert base.folder == first[0]
    assert base.model.config.vocab_size == len(base.tokenizer) == 300


@pytest.mark.parametrize("mode", ["default", "warn", "error"])
@pytest.mark.parametrize("cublas", [None, ":16:8"])
@pytest.mark.parametrize("inner", [deterministic, silent])
def test_the_process_is_left_as_it_was_found_after_success_and_failure(inner, mode, cublas, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", cublas or "")
    if cublas is None:
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode(mode)
    try:
        found = state()
        with inner():
            if inner is deterministic:
                assert torch.get_deterministic_debug_mode() == 2
                assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == (cublas or ":4096:8")
            else:
                assert not transformers_logging.is_progress_bar_enabled()
        assert state() == found
        with pytest.raises(KeyboardInterrupt), inner():
            raise KeyboardInterrupt
        assert state() == found
    finally:
        torch.set_deterministic_debug_mode(before)


def test_pretraining_says_nothing_but_to_its_listener_and_leaves_the_process_as_it_was(tmp_path, capfd):
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.enable_progress_bar()  # other tests load bases, which ends all bars
    try:
        found = state()
        deterministic_within: list[bool] = []
        pretrain(TINY, tmp_path, listen=lambda _: deterministic_within.append(is_deterministic()), limit=50)
        assert deterministic_within == [True]
        assert state() == found
        assert capfd.readouterr() == ("", "")
    finally:
        if not bars:
            transformers_logging.disable_progress_bar()


def test_a_listener_hears_of_every_epoch(tmp_path):
    _, heard = made(tmp_path, replace(TINY, epochs=3))
    assert [(p.epoch, p.epochs) for p in heard] == [(1, 3), (2, 3), (3, 3)]
    losses = [p.train_loss for p in heard]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < math.log(300) - 0.2
    assert all(1.0 < p.public_perplexity < 300.0 for p in heard)


def test_neither_tokenizer_nor_model_sees_a_client(tmp_path, monkeypatch):
    """Listen in on the two doors through which text enters, which stay open."""
    read: list[str] = []
    packed: list[tuple[keyboard.Turn, ...]] = []
    train_tokenizer, pack = module.train_tokenizer, module.rows_of

    def listening_tokenizer(texts, vocabulary):
        read.extend(texts)
        return train_tokenizer(read, vocabulary)

    def listening_pack(conversations, *rest):
        packed.extend(conversations)
        return pack(conversations, *rest)

    monkeypatch.setattr(module, "train_tokenizer", listening_tokenizer)
    monkeypatch.setattr(module, "rows_of", listening_pack)
    made(tmp_path)
    clients = set(keyboard._client_senders())
    assert packed
    assert clients.isdisjoint(who for turns in packed for who, _, _ in turns)
    assert set(read) <= {text for turns in packed for _, text, _ in turns}


def test_conversations_that_choose_settings_are_not_trained_on(tmp_path, monkeypatch):
    calls: list[list[tuple[keyboard.Turn, ...]]] = []
    pack = module.rows_of
    monkeypatch.setattr(
        module, "rows_of", lambda conversations, *rest: (calls.append(conversations), pack(conversations, *rest))[1]
    )
    made(tmp_path)
    aside, *trained = calls
    assert len(aside) == 1
    assert all(len(conversations) == 49 for conversations in trained)
    assert all(turns not in conversations for turns in aside for conversations in trained)


def test_the_card_says_how_it_was_made_and_how_well_it_does(first):
    out, _, heard = first
    write_card(out, TINY, heard, {"perplexity": 47.25, "top1": 0.2, "top3": 0.35}, "one core")
    card, record = (out / "README.md").read_text(), json.loads((out / "pretrain.json").read_text())
    assert fingerprint(out) in card
    assert "**47.2**" in card
    assert "top-1 20.0%, top-3 35.0%" in card
    assert f"| public perplexity after each epoch | {heard[0].public_perplexity:.1f} |" in card
    assert record["fingerprint"] == fingerprint(out)
    assert PretrainConfig(**record["config"]) == TINY
    assert record["clients_test"]["perplexity"] == 47.25
