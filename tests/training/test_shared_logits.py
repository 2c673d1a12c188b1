"""Shared logits: what a teacher says of public text is kept whole enough, checked when read, and learnt from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from fedpeft.base import load_base
from fedpeft.base.tokenizer import vocabulary_hash
from fedpeft.data.public import rows_of
from fedpeft.errors import FedpeftError, ScenarioError
from fedpeft.methods.attached import SHARED
from fedpeft.training import Training, train
from fedpeft.training.config import Distillation
from fedpeft.training.shared_logits import Origin, SharedLogits, ask, content_hash, divergence_from, load, origin_of

LINES = ["what do you think of the weather today", "i like it when it rains", "haha yeah me too", "see you soon"] * 9


@pytest.fixture(scope="session")
def shared() -> SharedLogits:
    """Return what the builtin base says of a few lines."""
    base = load_base("keyboard", "float32")
    turns = [(("", line, 0.0),) for line in LINES]
    rows = rows_of(turns, base.tokenizer, 24, np.random.default_rng(0), 10)
    origin = Origin(base.fingerprint, "", vocabulary_hash(base.tokenizer), 1.0)
    return ask(base.model, torch.from_numpy(rows.astype(np.int32)), 16, origin)


@pytest.fixture
def file(shared, tmp_path) -> Path:
    """Return the file of it."""
    shared.save(tmp_path / "logits.safetensors")
    return tmp_path / "logits.safetensors"


def test_what_is_kept_is_the_teachers_distribution(shared):
    logits = load_base("keyboard", "float32").model(input_ids=shared.text.long()).logits[:, :-1]
    wanted = logits.softmax(dim=-1).detach()
    kept = shared.scores.float().exp()
    torch.testing.assert_close(kept, wanted.gather(-1, shared.pieces.long()), rtol=4e-3, atol=1e-5)
    torch.testing.assert_close(shared.rest.float().exp(), 1 - kept.sum(-1), rtol=4e-3, atol=2e-3)
    assert (kept[..., -1:] >= wanted.scatter(-1, shared.pieces.long(), 0.0).max(-1, keepdim=True).values - 1e-4).all()


def test_the_divergence_is_that_of_distributions_over_the_kept_pieces_and_any_other():
    torch.manual_seed(0)
    teacher, student, temperature = torch.randn(5, 9) * 2, torch.randn(5, 9), 1.7
    best, pieces = (teacher / temperature).log_softmax(1).topk(3)
    rest = (1 - best.exp().sum(1)).log()

    def gathered(logits: torch.Tensor) -> torch.Tensor:
        whole = (logits / temperature).softmax(1)
        few = whole.gather(1, pieces)
        return torch.cat([few, 1 - few.sum(1, keepdim=True)], dim=1)

    wanted = temperature**2 * F.kl_div(gathered(student).log(), gathered(teacher), reduction="sum")
    found = divergence_from(student, pieces, best, rest, temperature)
    torch.testing.assert_close(found, wanted)
    nothing = divergence_from(teacher, pieces, best, rest, temperature)
    torch.testing.assert_close(nothing, torch.tensor(0.0), atol=1e-5, rtol=0)


def test_a_file_says_what_was_written_and_who_said_it(shared, file):
    again = load(str(file), shared.origin.vocabulary, 2048)
    assert again.origin == shared.origin == origin_of(str(file))
    for name in ("text", "pieces", "scores", "rest"):
        assert torch.equal(getattr(again, name), getattr(shared, name))


def test_more_pieces_than_leave_a_rest_are_refused(shared):
    base = load_base("keyboard", "float32")
    with pytest.raises(FedpeftError, match="--top: found 2000, expected 1 to 1024"):
        ask(base.model, shared.text[:1], 2000, shared.origin)


HARM = {
    "int32 pieces": lambda t: {**t, "pieces": t["pieces"].long()},
    "the tensors": lambda t: {k: v for k, v in t.items() if k != "rest"},
    "as many scores": lambda t: {**t, "scores": t["scores"][:, :, :5].contiguous()},
    "each place but the last": lambda t: {**t, "text": t["text"][:, :-1].contiguous()},
    "none below 0": lambda t: {**t, "pieces": t["pieces"] - 3000},
    "sum to 1": lambda t: {**t, "scores": t["scores"] * torch.nan},
    "probabilities": lambda t: {**t, "rest": t["rest"] * 0},
    "pieces below 2048": lambda t: {**t, "pieces": t["pieces"] + 2048},
}


@pytest.mark.parametrize("expected", HARM)
def test_a_harmed_file_is_refused_in_one_line(expected, shared, file, tmp_path):
    harmed = tmp_path / "harmed.safetensors"
    told = {"format": "fedpeft-shared-logits/1", "teacher": "x", "adapter": "", "temperature": "1.0"}
    save_file(HARM[expected](load_file(file)), harmed, {**told, "vocabulary": shared.origin.vocabulary})
    with pytest.raises(ScenarioError, match=rf"training.distillation.logits: found '{harmed}', expected .*{expected}"):
        load(str(harmed), shared.origin.vocabulary, 2048)


def test_files_of_other_kinds_and_other_vocabularies_are_refused(shared, file, tmp_path):
    with pytest.raises(ScenarioError, match="expected a file that `fedpeft distill` wrote"):
        origin_of(str(tmp_path / "none"))
    with pytest.raises(ScenarioError, match="expected a file that `fedpeft distill` wrote"):
        content_hash(str(tmp_path / "none"))
    save_file({"text": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ScenarioError, match="expected shared logits in the format"):
        origin_of(str(tmp_path / "other.safetensors"))
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ScenarioError, match="expected a file that"):
        origin_of(str(cut))
    with pytest.raises(ScenarioError, match="expected logits over the pieces of this base; ask a teacher"):
        load(str(file), "another", 2048)


def test_lessons_in_parts_chunks_and_with_checkpoints_are_the_same_lessons(gradients, file):
    taught = {"distillation": Distillation(logits=str(file), weight=0.5)}
    plain = gradients(**taught)
    for option in ({"micro_batch": 3}, {"chunk": 50}, {"checkpointing": True}, {"micro_batch": 4, "chunk": 7}):
        for name, gradient in gradients(**taught, **option).items():
            torch.testing.assert_close(gradient, plain[name], rtol=1e-3, atol=1e-6)
    # They are added to what is learnt of one's own text, in the wanted shares.
    own, heavier = gradients(), gradients(distillation=Distillation(logits=str(file), weight=0.75))
    for name, gradient in heavier.items():
        lesson = 2 * (plain[name] - 0.5 * own[name])
        torch.testing.assert_close(gradient, 0.25 * own[name] + 0.75 * lesson, rtol=1e-3, atol=1e-6)


def test_one_seed_draws_one_course_of_lessons(attached, task, text, file):
    def learnt(seed: int) -> np.ndarray:
        attached.write(SHARED, attached.initial[SHARED])
        taught = Distillation(logits=str(file), weight=1.0)
        train(attached, SHARED, task, text, Training(steps=2, batch=4, distillation=taught), seed)
        return attached.read(SHARED)

    assert np.array_equal(learnt(3), learnt(3))
    assert not np.array_equal(learnt(3), learnt(4))


def test_a_smaller_base_learns_more_with_the_larger_ones_word_than_without(shared, tmp_path):
    from fedpeft.base.shrink import shrink
    from fedpeft.data.windows import Windows
    from fedpeft.methods import Attached, parse_method
    from fedpeft.tasks.next_word import NextWord
    from fedpeft.training.evaluate import mean_loss

    shrink("keyboard", 2, tmp_path / "small")
    base = load_base(str(tmp_path / "small"), "float32")
    turns = [(("", line, 0.0),) for line in LINES]
    rows = rows_of(turns, base.tokenizer, 24, np.random.default_rng(1)).astype(np.int32)
    public = replace(shared, origin=replace(shared.origin, vocabulary=vocabulary_hash(base.tokenizer)))
    public.save(tmp_path / "logits.safetensors")
    attached = Attached(base, parse_method({"name": "lora", "rank": 8}), None, 0)
    task = NextWord(base, None, 24)
    own, held = Windows(rows[:1, :12], rows[:1, :12].copy()), Windows(rows, rows.copy())

    def loss(taught: Distillation | None) -> float:
        attached.write(SHARED, attached.initial[SHARED])
        settings = Training(steps=12, batch=8, learning_rate=3e-3, distillation=taught)
        train(attached, SHARED, task, own, settings, seed=0)
        return mean_loss(attached, task, held)

    alone, taught = loss(None), loss(Distillation(logits=str(tmp_path / "logits.safetensors")))
    assert taught < 0.95 * alone
