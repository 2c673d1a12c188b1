"""Windows cover every piece a person wrote once, and label nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft.base import load_base
from fedpeft.data import Client, Excerpt, Message, load_federation
from fedpeft.data.marks import Marks
from fedpeft.data.split import temporal_split
from fedpeft.data.windows import IGNORED, Windows, pieces, windows
from tests.data.histories import histories

lengths = st.integers(8, 40)
TOKENIZERS = pytest.mark.parametrize("name", ["marked", "plain"])


@pytest.fixture(scope="module")
def tokenizers(marked, plain):
    return {"marked": marked, "plain": plain}


def labelled(made: Windows) -> list[int]:
    """Return the labels in order, row after row."""
    return made.labels[made.labels != IGNORED].tolist()


def bodies(texts: list[str], tokenizer) -> list[int]:
    """Return what ought to be labelled: the pieces of each text and the end of the message."""
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    return [piece for one in encoded for piece in [*one, tokenizer.eos_token_id]]


@TOKENIZERS
@settings(max_examples=100, deadline=None)
@given(histories, lengths)
def test_every_own_piece_is_labelled_exactly_once_across_windows(tokenizers, name, history, length):
    tokenizer = tokenizers[name]
    split = temporal_split(history)
    for excerpts in (split.train, split.validation, split.test):
        made = windows(excerpts, tokenizer, length)
        assert labelled(made) == bodies([text for e in excerpts for text in e.mine()], tokenizer)


@TOKENIZERS
@settings(max_examples=100, deadline=None)
@given(histories, lengths)
def test_no_word_of_one_split_is_labelled_in_another(tokenizers, name, history, length):
    tokenizer = tokenizers[name]
    split = temporal_split(history)
    train, validation, test = (
        set(labelled(windows(part, tokenizer, length))) - {tokenizer.eos_token_id}
        for part in (split.train, split.validation, split.test)
    )
    assert not train & validation
    assert not train & test
    assert not validation & test


@TOKENIZERS
@settings(max_examples=100, deadline=None)
@given(histories, lengths)
def test_a_window_is_its_start_a_stretch_of_the_conversation_and_padding(tokenizers, name, history, length):
    tokenizer = tokenizers[name]
    marks = Marks.of(tokenizer)
    room = length - len(marks.start)
    stride = room - room // 4
    for conversation in history:
        flat, _ = pieces(Excerpt(conversation), tokenizer, marks)
        begins = [b for b in range(0, len(flat), stride) if b == 0 or b - stride + room < len(flat)]
        stretches = [[*marks.start, *flat[b : b + room]] for b in begins]
        possible = [stretch + [marks.pad] * (length - len(stretch)) for stretch in stretches]
        made = windows([Excerpt(conversation)], tokenizer, length)
        assert made.ids.shape == made.labels.shape == (len(made), length)
        assert made.ids.dtype == made.labels.dtype == np.int32
        for ids, labels in zip(made.ids.tolist(), made.labels.tolist(), strict=True):
            assert ids in possible
            filled = len(stretches[possible.index(ids)])
            assert all(label in (IGNORED, piece) for label, piece in zip(labels, ids, strict=True))
            assert set(labels[: len(marks.start)]) | set(labels[filled:]) <= {IGNORED}


def test_after_the_first_window_a_quarter_of_each_is_unlabelled_context(marked):
    words = " ".join(f"w{i}" for i in range(100))
    made = windows([Excerpt((Message(words, True, 0.0),))], marked, 33)
    assert len(made) == 4  # 32 pieces each, the next 24 further on, 102 in all
    for before, ids, labels in zip(made.ids, made.ids[1:], made.labels[1:], strict=False):
        assert (labels[:9] == IGNORED).all()
        assert np.array_equal(ids[1:9], before[-8:])
        assert labels[9] == ids[9]


def test_what_others_wrote_and_what_came_before_is_read_but_never_labelled(marked):
    excerpt = Excerpt(
        (
            Message("w0 w1", True, 0.0),
            Message("w2", False, 1.0),
            Message("w3", True, 2.0),
            Message("w4", False, 3.0),
        ),
        first=1,
    )
    made = windows([excerpt], marked, 16)
    text = marked.convert_ids_to_tokens(made.ids[0].tolist())
    assert " ".join(text) == "<s> <me> w0 w1 </s> <you> w2 </s> <me> w3 </s> <you> w4 </s> <pad> <pad>"
    assert marked.convert_ids_to_tokens(labelled(made)) == ["w3", "</s>"]


def test_a_tokenizer_without_marks_separates_messages_by_their_end(plain):
    marks = Marks.of(plain)
    assert (marks.start, marks.me, marks.you) == ((), (), ())
    assert marks.pad == plain.eos_token_id
    made = windows([Excerpt((Message("w0", False, 0.0), Message("w1", True, 1.0)))], plain, 8)
    assert plain.convert_ids_to_tokens(made.ids[0].tolist()) == ["w0", "<end>", "w1", *["<end>"] * 5]
    assert plain.convert_ids_to_tokens(labelled(made)) == ["w1", "<end>"]


@TOKENIZERS
def test_no_window_is_left_without_a_piece_to_score(tokenizers, name):
    """A training step on such a window alone has no loss: its mean over nothing is NaN."""
    excerpts = [Excerpt((Message("", True, 0.0),)), Excerpt((Message("w1 w2", True, 1.0),))]
    made = windows(excerpts, tokenizers[name], 8)
    assert ((made.labels[:, 1:] != IGNORED).sum(axis=1) > 0).all()


@TOKENIZERS
def test_a_person_who_wrote_nothing_has_no_windows(tokenizers, name):
    for excerpts in ([], [Excerpt((Message("w1", False, 0.0),))], [Excerpt((Message("w1", True, 0.0),), first=1)]):
        made = windows(excerpts, tokenizers[name], 8)
        assert (len(made), made.tokens, made.ids.shape) == (0, 0, (0, 8))


def test_tokens_counts_what_is_scored_and_head_keeps_the_first_windows(marked):
    made = windows([Excerpt((Message("w1 w2 w3", True, float(i)),)) for i in range(3)], marked, 8)
    assert (len(made), made.tokens) == (3, 12)
    assert (len(made.head(2)), made.head(2).tokens) == (2, 8)
    assert np.array_equal(made.head(2).ids, made.ids[:2])
    assert len(made.head(9)) == 3


@pytest.mark.parametrize("length", [16, 64])
def test_the_builtin_base_reads_back_every_message_of_real_people_letter_by_letter(length):
    tokenizer = load_base("keyboard").tokenizer
    federation = load_federation("keyboard")
    for client in ("user-00", "user-31", "user-63"):
        excerpts = Client.of(federation, client).split.test
        made = windows(excerpts, tokenizer, length)
        messages: list[list[int]] = [[]]
        for piece in labelled(made):
            if piece == tokenizer.eos_token_id:
                messages.append([])
            else:
                messages[-1].append(piece)
        read = [tokenizer.decode(message) for message in messages]
        assert read == [*(f" {text}" for e in excerpts for text in e.mine()), ""]
