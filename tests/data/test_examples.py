"""Labelled texts become rows of tokens with a mask and a class, and a typed mark stays text."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft.base import load_base
from fedpeft.data import Example
from fedpeft.data.examples import encode
from fedpeft.errors import DataError


@pytest.fixture(scope="module")
def minilm():
    """Return the encoder under a head of five classes."""
    return load_base("minilm", "float32", labels=5)


def test_a_text_is_read_between_the_encoders_marks(minilm):
    encoded = encode([Example("i lost my card", 2), Example("hi", 4)], minilm.tokenizer, 16, (1, 5))
    words = [
        minilm.tokenizer.convert_ids_to_tokens(row[kept]) for row, kept in zip(encoded.ids, encoded.mask, strict=True)
    ]
    assert words == [["[CLS]", "i", "lost", "my", "card", "[SEP]"], ["[CLS]", "hi", "[SEP]"]]
    assert encoded.ids.shape == encoded.mask.shape == (2, 6)
    assert (encoded.ids.dtype, encoded.mask.dtype, encoded.classes.dtype) == (np.int32, np.bool_, np.int64)
    assert encoded.classes.tolist() == [2, 4]
    assert (encoded.first, encoded.last) == (1, 5)
    assert (len(encoded), encoded.tokens) == (2, 2)


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(st.text(max_size=60), max_size=8), length=st.integers(3, 20))
def test_rows_are_padded_on_the_right_and_never_longer_than_asked(minilm, texts, length):
    encoded = encode([Example(t, 0) for t in texts], minilm.tokenizer, length, (0, 5))
    assert len(encoded) == len(texts)
    assert encoded.ids.shape[1] == max(encoded.mask.sum(axis=1), default=0) <= length
    for row, kept in zip(encoded.ids, encoded.mask, strict=True):
        used = int(kept.sum())
        assert kept[:used].all()
        assert (row[used:] == minilm.tokenizer.pad_token_id).all()
        assert (row[0], row[used - 1]) == (minilm.tokenizer.cls_token_id, minilm.tokenizer.sep_token_id)
        assert minilm.tokenizer.sep_token_id not in row[1 : used - 1]


def test_a_typed_mark_is_text(minilm):
    encoded = encode([Example("[SEP] [CLS] [PAD]", 0)], minilm.tokenizer, 32, (0, 5))
    assert encoded.mask.all()
    assert not set(minilm.tokenizer.all_special_ids) & set(encoded.ids[0, 1:-1].tolist())


def test_padding_does_not_change_what_the_encoder_says(minilm):
    examples = [Example("hi", 0), Example("what is the weather like in lisbon at this time of the year", 1)]
    with torch.no_grad():
        together = encode(examples, minilm.tokenizer, 32, (0, 5))
        logits = minilm.model(torch.from_numpy(together.ids).long(), torch.from_numpy(together.mask).long()).logits
        for i, example in enumerate(examples):
            alone = encode([example], minilm.tokenizer, 32, (0, 5))
            own = minilm.model(torch.from_numpy(alone.ids).long()).logits
            assert torch.allclose(own[0], logits[i], atol=1e-5)


def test_the_first_few_are_a_prefix(minilm):
    encoded = encode([Example(f"text {i}", i) for i in range(5)], minilm.tokenizer, 8, (0, 5))
    assert encoded.head(2).classes.tolist() == [0, 1]
    assert np.array_equal(encoded.head(2).ids, encoded.ids[:2])
    assert (len(encoded.head(9)), encoded.head(2).last) == (5, 5)


def test_nothing_encodes_to_nothing(minilm):
    encoded = encode([], minilm.tokenizer, 8, (0, 5))
    assert (encoded.ids.shape, encoded.mask.shape, encoded.classes.shape, encoded.tokens) == ((0, 0), (0, 0), (0,), 0)


@pytest.mark.parametrize("label", [-1, 1, 5])
def test_a_label_of_another_task_is_refused(minilm, label):
    with pytest.raises(DataError, match=f"label: found {label}, expected one of the client's task, from 2 to 4"):
        encode([Example("a", label)], minilm.tokenizer, 8, (2, 5))
