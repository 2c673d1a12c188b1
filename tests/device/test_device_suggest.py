"""Suggestions are whole, distinct words, ranked by a probability that can be checked by hand."""

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedpeft.device import Runtime
from fedpeft.device.sampling import softmax
from fedpeft.device.words import Words

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


@pytest.fixture(scope="session")
def words(runtime) -> Words:
    return Words(runtime.text)


def check(suggestions, beginning: str) -> None:
    found = [s.word for s in suggestions]
    assert len(set(found)) == 3
    assert all(WORD.fullmatch(word) and word.startswith(beginning) for word in found)
    chances = [s.probability for s in suggestions]
    assert chances == sorted(chances, reverse=True)
    assert chances[-1] >= 0 and sum(chances) <= 1 + 1e-6


@pytest.mark.parametrize("typed", ["", " ", "I am ", "Hi,", "what?! ", "line\n", "🙂", "He said (", "_"])
def test_after_a_word_three_next_words_are_suggested(runtime, ada, typed):
    for adapter in (None, ada):
        check(runtime.suggest(typed, adapter), "")


@pytest.mark.parametrize(
    ("typed", "beginning"),
    [
        ("I am g", "g"),
        ("wha", "wha"),
        ("don'", "don'"),
        ("I don’t kn", "kn"),
        ("(so", "so"),
        ("I'm qzxv", "qzxv"),
        ("3", "3"),
        ("Gr", "Gr"),
        ("caf\u00e9", "caf\u00e9"),
        ("x_y", "y"),
    ],
)
def test_within_a_word_its_letters_are_kept(runtime, ada, typed, beginning):
    for adapter in (None, ada):
        check(runtime.suggest(typed, adapter), beginning)


@settings(max_examples=25, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
@example("a" * 12)
@example("word " * 400 + "wo")
def test_any_text_gets_three_words_that_continue_it(runtime: Runtime, words: Words, typed):
    _, target = words.divide(typed)
    check(runtime.suggest(typed), target.decode().strip())


def test_a_word_too_long_to_be_one_gets_none(runtime):
    assert runtime.suggest("a" * 100) == []


def test_more_words_are_given_when_asked_for(runtime):
    few, many = runtime.suggest("I am "), runtime.suggest("I am ", count=8)
    assert len({s.word for s in many}) == 8
    assert [s.word for s in many[:3]] == [s.word for s in few]


def spellings(spelled: bytes, pieces: list[bytes]) -> list[list[int]]:
    """Cut bytes into pieces in every possible way."""
    if not spelled:
        return [[]]
    return [
        [i, *rest]
        for i, piece in enumerate(pieces)
        if piece and spelled.startswith(piece)
        for rest in spellings(spelled[len(piece) :], pieces)
    ]


def spelling_chances(runtime: Runtime, words: Words, before: str, spelled: bytes, adapter) -> list[float]:
    """Score every spelling without cache, batch or beam."""
    start = runtime.text.begin(before, room=100)
    chances = []
    for ids in spellings(spelled, list(runtime.text.pieces)):
        after = softmax(runtime.logits([*start, *ids], adapter))[len(start) - 1 :]
        reached = np.prod([row[i] for row, i in zip(after, ids, strict=False)])
        chances.append(float(reached * after[-1][words.ends].sum()))
    return chances


def twice_spelled(pieces: tuple[bytes, ...]) -> list[bytes]:
    """Return some words of which the tokenizer has no piece but two ways to make them from two."""
    first = {p for p in pieces if re.fullmatch(rb" [a-z]{1,4}", p)}
    second = {p for p in pieces if re.fullmatch(rb"[a-z]{1,3}", p)}
    made = Counter(a + b for a in sorted(first) for b in sorted(second) if a + b not in first)
    return [spelled for spelled, ways in made.items() if ways > 1 and len(spelled) < 6][::50][:30]


def test_the_spellings_of_a_word_are_summed(runtime, words):
    candidates = twice_spelled(runtime.text.pieces)
    chances = {c: sorted(spelling_chances(runtime, words, "I do", c, None)) for c in candidates}
    for spelled in sorted(candidates, key=lambda c: chances[c][-1] / chances[c][-2]):
        # Asked for this many words, the search returns all it found.
        found = {s.word: s.probability for s in runtime.suggest(f"I do{spelled.decode()}", count=1000)}
        if (word := spelled.decode().strip()) in found:
            assert 0.999 * sum(chances[spelled][-2:]) <= found[word] <= 1.001 * sum(chances[spelled])
            return
    pytest.fail("no word of several spellings was found")


@pytest.mark.parametrize(
    ("typed", "before"), [("I am ", "I am"), ("", ""), ("I do wh", "I do"), ("I do qz", "I do"), ("I don'", "I")]
)
def test_a_probability_is_the_sum_over_the_spellings_of_the_word(runtime, ada, words, typed, before):
    for adapter in (None, ada):
        for suggestion in runtime.suggest(typed, adapter):
            spelled = b" " + suggestion.word.encode()
            chances = spelling_chances(runtime, words, before, spelled, adapter)
            # The beam may leave out unlikely spellings, never the likeliest, and never count one twice.
            assert max(chances) * 0.999 <= suggestion.probability <= sum(chances) * 1.001


def test_no_other_single_piece_word_is_likelier(runtime, words):
    start = runtime.text.begin("I am", room=100)
    best = runtime.suggest("I am ")[-1].probability
    pieces = runtime.text.pieces
    first = softmax(runtime.logits(start)[-1])
    found = {s.word for s in runtime.suggest("I am ")}
    for i in np.argsort(-first)[:40]:
        word = pieces[i].decode(errors="replace").strip()
        if pieces[i].startswith(b" ") and WORD.fullmatch(word) and word not in found:
            ends = softmax(runtime.logits([*start, int(i)])[-1])[words.ends].sum()
            assert first[i] * ends <= best * 1.001


@pytest.mark.parametrize(
    ("typed", "before", "target"),
    [
        ("", "", b" "),
        ("  ", "", b" "),
        ("wo", "", b" wo"),
        ("a wo", "a", b" wo"),
        ("a  wo", "a", b" wo"),
        ("a ", "a", b" "),
        ("a,", "a,", b" "),
        ("a (wo", "a (", b"wo"),
        ("I'm", "", b" I'm"),
        ("'tis", "'", b"tis"),
    ],
)
def test_a_text_divides_into_whole_words_and_the_letters_of_the_last(words, typed, before, target):
    assert words.divide(typed) == (before, target)


def test_a_word_is_over_before_a_space_punctuation_or_the_end_of_the_message(runtime, words):
    ends = {piece for piece, over in zip(runtime.text.pieces, words.ends, strict=True) if over and piece}
    assert {b" ", b" the", b".", b"!", b"'", b"_"} <= ends
    assert not {b"a", b"ing", b"'t", b"7", b"\xc3"} & ends
    assert [i for i in range(5) if words.ends[i]] == [2]


@pytest.mark.parametrize(
    ("target", "allowed", "refused"),
    [
        (b" ", {b" ", b" the", b" I"}, {b"the", b" (", b"."}),
        (b" th", {b" ", b" t", b" th", b" the", b" that"}, {b"th", b" a", b" to"}),
        (b"", {b"ing", b"'t"}, {b" the", b"'", b"."}),
    ],
)
def test_only_pieces_that_agree_with_what_was_typed_are_followed(runtime, words, target, allowed, refused):
    found = {p for p, yes in zip(runtime.text.pieces, words.following(b"", target), strict=True) if yes}
    assert allowed <= found
    assert not refused & found


def continues(piece: bytes) -> bool:
    try:
        return re.fullmatch(r"['’]?[^\W_]+|’", piece.decode()) is not None
    except UnicodeDecodeError:
        return True


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_pieces_that_agree_with_typed_letters_are_those_that_do_by_definition(words, data):
    piece = data.draw(st.sampled_from([p for p in words.text.pieces if p]))
    rest = piece[: data.draw(st.integers(1, len(piece)))] + data.draw(st.sampled_from([b"", b"a", b"\xc3"]))
    found = words.following(b"", rest)
    for i, candidate in enumerate(words.text.pieces):
        if len(candidate) <= len(rest) or not candidate.startswith(rest):
            assert found[i] == (bool(candidate) and rest.startswith(candidate))
        else:
            assert found[i] == continues(candidate.lstrip())


def test_a_suggester_says_after_every_keystroke_what_one_without_memory_says(runtime, ada):
    typed = "I do not know wh"
    edits = [typed[:n] for n in range(len(typed) + 1)] + [
        "I do",
        "Hello there ",
        typed,
        "word " * 400,
        "word " * 401 + "wo",
    ]
    for adapter in (None, ada):
        suggester = runtime.suggester(adapter)
        for text in edits:
            found, alone = suggester.suggest(text), runtime.suggest(text, adapter)
            assert [s.word for s in found] == [s.word for s in alone]
            assert np.allclose([s.probability for s in found], [s.probability for s in alone], rtol=1e-3)
    assert runtime.suggester(ada).suggest(typed) != runtime.suggester(None).suggest(typed)


def test_a_suggester_reads_only_what_is_new(runtime, monkeypatch):
    read: list[tuple[int, int]] = []
    plain = type(runtime._decoder).read

    def counted(self, ids, cache, adapter):
        read.append(ids.shape)
        return plain(self, ids, cache, adapter)

    monkeypatch.setattr(type(runtime._decoder), "read", counted)
    suggester = runtime.suggester()
    suggester.suggest("so what are you doing today my friend I am ")
    assert read[0][1] > 8
    read.clear()
    suggester.suggest("so what are you doing today my friend I am g")
    assert all(new == 1 for _, new in read)
    read.clear()
    suggester.suggest("so what are you doing today my friend I am going ")
    assert read[0][0] == 1 and read[0][1] <= 2
