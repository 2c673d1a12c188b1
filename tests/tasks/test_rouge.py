"""ROUGE-L against trying every subsequence."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpeft.tasks.rouge import longest_common_subsequence, rouge_l, words

texts = st.lists(st.sampled_from("abc"), max_size=7)


def subsequences(text: list[str]) -> set[tuple[str, ...]]:
    return {
        tuple(text[i] for i in chosen) for n in range(len(text) + 1) for chosen in combinations(range(len(text)), n)
    }


@given(texts, texts)
def test_the_longest_common_subsequence_is_the_longest_of_all_common_ones(one, other):
    common = subsequences(one) & subsequences(other)
    assert longest_common_subsequence(one, other) == max(map(len, common))
    score = rouge_l(" ".join(one), " ".join(other))
    if one and other:
        recall, precision = max(map(len, common)) / len(one), max(map(len, common)) / len(other)
        mean = 2 * recall * precision / (recall + precision) if recall else 0.0
        assert score == pytest.approx(mean)
    else:
        assert score == float(one == other)


def test_lins_own_example():
    """Lin 2004, section 3.1: of two candidates with the same words, order tells them apart."""
    reference = "police killed the gunman"
    assert rouge_l(reference, "police kill the gunman") == pytest.approx(3 / 4)
    assert rouge_l(reference, "the gunman kill police") == pytest.approx(2 / 4)


def test_words_have_no_case_and_no_punctuation():
    assert words("It's FINE, isn’t it?! :) naïve_2x") == ["it's", "fine", "isn’t", "it", "naïve", "2x"]
    assert rouge_l("Yeah, haha!", "yeah haha") == 1.0
    assert rouge_l("yes", ":)") == 0.0
    assert rouge_l(":)", "!") == 1.0
