"""Keystrokes saved, counted by typing every letter in pure Python."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from fedpeft.tasks.keystrokes import Keystrokes


def typed_out(pieces: list[str], logits: np.ndarray, targets: list[int]) -> tuple[int, int]:
    """Type each wanted piece letter by letter, looking at three suggestions before each letter."""
    saved = characters = 0
    for scores, target in zip(logits, targets, strict=True):
        wanted = pieces[target]
        characters += len(wanted)
        likeliest = sorted(range(len(pieces)), key=lambda i: -scores[i])
        for k in range(len(wanted) - 1):
            going_on = [i for i in likeliest if len(pieces[i]) > k and pieces[i].startswith(wanted[:k])]
            if target in going_on[:3]:
                saved += len(wanted) - k - 1
                break
    return saved, characters


def words(*pieces: str) -> PreTrainedTokenizerFast:
    """Make a tokenizer whose pieces are these, behind one mark."""
    vocabulary = {piece: i for i, piece in enumerate(["</s>", *pieces])}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="</s>")), eos_token="</s>"
    )


SMALL = ("a", "b", "ab", "abc", "abcd", "abd", "ba", "bab", "babble", "abacus", "abbey", "c")


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 12))
def test_a_small_vocabulary_is_typed_out_alike(seed, count):
    rng = np.random.default_rng(seed)
    logits, targets = rng.normal(size=(count, len(SMALL) + 1)), rng.integers(0, len(SMALL) + 1, count)
    counted = Keystrokes(words(*SMALL), len(SMALL) + 1).count(
        torch.from_numpy(logits).float(), torch.from_numpy(targets)
    )
    assert counted == typed_out(["", *SMALL], logits.astype(np.float32), targets.tolist())


def test_the_builtin_vocabulary_is_typed_out_alike(base, keystrokes):
    tokenizer = base.tokenizer
    pieces = [
        "" if i in tokenizer.all_special_ids else tokenizer.decode([i], clean_up_tokenization_spaces=False)
        for i in range(len(tokenizer))
    ]
    rng = np.random.default_rng(0)
    targets = rng.integers(0, len(pieces), 50)
    targets[:3] = np.argsort([len(piece) for piece in pieces])[-3:]
    logits = rng.normal(size=(50, len(pieces))).astype(np.float32)
    logits[np.arange(50), targets] += rng.uniform(0, 3, 50).astype(np.float32)
    saved, characters = typed_out(pieces, logits, targets.tolist())
    assert 0 < saved < characters
    assert keystrokes.count(torch.from_numpy(logits), torch.from_numpy(targets)) == (saved, characters)


def test_long_pieces_are_typed_to_their_end():
    """Hub vocabularies have runs of dashes and spaces, each a prefix of the next."""
    pieces = ["-" * n for n in range(13, 21)]
    logits = np.linspace(1, 0, len(pieces) + 1)[None].astype(np.float32)
    expected = typed_out(["", *pieces], logits, [len(pieces)])
    assert expected == (2, 20)
    counted = Keystrokes(words(*pieces), len(pieces) + 1).count(torch.from_numpy(logits), torch.tensor([len(pieces)]))
    assert counted == expected


@pytest.mark.parametrize(
    ("scores", "saved"),
    [
        ({"abacus": 9.0}, 5),  # offered before the first letter: one tap instead of six letters
        ({"b": 9.0, "ba": 8.0, "c": 7.0, "abacus": 6.0}, 4),  # after its first
        ({"ab": 9.0, "abc": 8.0, "abd": 7.0, "abacus": 6.0}, 3),  # after its second, when "ab" itself is done
        ({"abc": 9.0, "abd": 8.0, "abbey": 7.0, "abacus": 6.0}, 2),  # after its third
    ],
)
def test_the_sooner_it_is_offered_the_more_is_saved(scores, saved):
    logits = torch.tensor([[scores.get(piece, 0.0) for piece in ("", *SMALL)]])
    target = torch.tensor([1 + SMALL.index("abacus")])
    assert Keystrokes(words(*SMALL), len(SMALL) + 1).count(logits, target) == (saved, 6)


def test_of_pieces_that_tie_three_are_offered():
    pieces = [f"word{letter}" for letter in "abcdefgh"]
    logits = torch.zeros(8, 9)
    saved, characters = Keystrokes(words(*pieces), 9).count(logits, torch.arange(1, 9))
    assert characters == 40
    assert saved == 3 * 4  # the other five are alone only once their last letter is typed


def test_marks_and_single_letters_save_nothing():
    logits = torch.zeros(2, len(SMALL) + 1)
    logits[0, 0] = logits[1, 1] = 9.0
    assert Keystrokes(words(*SMALL), len(SMALL) + 1).count(logits, torch.tensor([0, 1])) == (0.0, 1.0)


def test_a_head_wider_than_the_vocabulary_is_fine():
    counter = Keystrokes(words(*SMALL), len(SMALL) + 9)
    logits = torch.zeros(1, len(SMALL) + 9)
    logits[0, -1], logits[0, 10] = 9.0, 8.0
    assert counter.count(logits, torch.tensor([10])) == (5.0, 6.0)
