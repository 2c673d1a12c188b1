"""The builtin tokenizer loses nothing and spells a word one way wherever it stands."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft.base import load_base
from fedpeft.base.tokenizer import train_tokenizer
from fedpeft.data.marks import END, ME, PAD, START, YOU

TEXTS = ["on my way", "see you at the station", "my my, what a day", "the day the train came late", "où ça? 😀"] * 3


@pytest.fixture(scope="module")
def small():
    return train_tokenizer(TEXTS, 300)


@pytest.fixture(scope="module")
def builtin():
    return load_base("keyboard").tokenizer


@settings(max_examples=150, deadline=None)
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_comes_back_byte_for_byte_but_for_the_first_words_space(small, builtin, text):
    for tokenizer in (small, builtin):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False).removeprefix(" ") == text.removeprefix(" ")


def test_the_marks_are_the_first_five_pieces(small, builtin):
    for tokenizer in (small, builtin):
        assert tokenizer.convert_tokens_to_ids([PAD, START, END, ME, YOU]) == [0, 1, 2, 3, 4]
        assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
        assert set(tokenizer.all_special_ids) == {0, 1, 2, 3, 4}


def test_the_vocabulary_has_the_size_asked_for(small):
    assert len(small) == 300


def test_a_word_has_one_spelling_at_the_start_and_in_the_middle(builtin):
    start = builtin("station", add_special_tokens=False)["input_ids"]
    middle = builtin("the station", add_special_tokens=False)["input_ids"]
    assert middle[-len(start) :] == start


def test_the_order_of_the_texts_does_not_matter(small):
    shuffled = random.Random(5).sample(TEXTS, len(TEXTS))
    assert train_tokenizer(shuffled, 300).backend_tokenizer.to_str() == small.backend_tokenizer.to_str()
