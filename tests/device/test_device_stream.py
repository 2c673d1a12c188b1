"""A streamed text is the whole text, whatever it is cut into."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedpeft.device.generation import Generation
from fedpeft.device.stream import Speech
from fedpeft.errors import FedpeftError


def spoken(speech: Speech, tokens) -> list[str]:
    """Return what is said after each token, and at the end, until the speech is over."""
    said = []
    for token in tokens:
        said.append(speech.push(token))
        if speech.ended:
            return said
    return [*said, speech.flush()]


def letters(ids) -> str:
    """Decode tokens that are letters."""
    return "".join(chr(i) for i in ids)


@settings(deadline=None)
@given(st.lists(st.integers(5, 4000), max_size=30))
@example([100, 101, 102])
def test_streamed_pieces_join_to_the_text_of_all_tokens_even_where_they_are_no_characters(runtime, ids):
    ids = [i % runtime.text.facts.vocabulary for i in ids]
    assert "".join(spoken(Speech(runtime.text.decode), ids)) == runtime.text.decode(ids)


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), max_size=30))
@example("👩‍👩‍👧‍👦 Grüße żółć")
def test_no_part_of_a_stream_ends_within_a_character(runtime, text):
    ids = runtime.text.encode(text)
    found = spoken(Speech(runtime.text.decode), ids)
    assert not any("\ufffd" in part for part in found)
    assert "".join(found) == runtime.text.decode(ids)


def reference(text: str, stop: list[str]) -> str:
    """Read letter by letter; where a stop text is complete, cut the longest that is."""
    for end in range(1, len(text) + 1):
        complete = [s for s in stop if text[:end].endswith(s)]
        if complete:
            return text[: end - len(max(complete, key=len))]
    return text


@given(st.lists(st.text("ab c", max_size=4), max_size=12), st.lists(st.text("ab ", min_size=1, max_size=4), max_size=4))
@example(["a", "b", "a", "b"], ["bab", "b a"])
def test_the_text_ends_before_the_first_complete_stop_text_however_it_is_cut(parts, stop):
    speech = Speech(lambda ids: "".join(parts[i] for i in ids), stop)
    assert "".join(spoken(speech, range(len(parts)))) == reference("".join(parts), stop)
    assert speech.ended == (reference("".join(parts), stop) != "".join(parts))


def test_what_cannot_become_a_stop_text_is_given_out_at_once():
    speech = Speech(letters, ["cy", "END"])
    assert [speech.push(ord(c)) for c in "abcxENyEND"] == ["a", "b", "", "cx", "", "", "ENy", "", "", ""]
    assert speech.ended and speech.push(ord("z")) == speech.flush() == ""


@given(st.text("ab ", max_size=12))
def test_only_the_first_spaces_are_dropped(text):
    assert "".join(spoken(Speech(letters, bare=True), map(ord, text))) == text.lstrip(" ")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tokens", 0),
        ("tokens", -3),
        ("seed", -1),
        ("seed", 2**64),
        ("stop", ("",)),
        ("stop", "text"),
        ("stop", (1,)),
        ("stop", tuple("abcdefghijklmnopq")),
        ("stop", None),
        ("stop", 3),
        ("tokens", 2.5),
        ("tokens", "3"),
        ("tokens", True),
        ("seed", 0.5),
        ("seed", None),
        ("top_k", 1.5),
        ("top_k", None),
        ("temperature", "hot"),
        ("temperature", None),
        ("top_p", 2.0),
        ("top_p", "1"),
        ("repetition_penalty", None),
    ],
)
def test_options_without_meaning_are_refused_by_name(field, value):
    with pytest.raises(FedpeftError, match=f"{field}: found"):
        Generation(**{field: value})


def test_numbers_of_numpy_are_numbers_too():
    assert Generation(tokens=np.int64(3), seed=np.int32(1), top_k=np.int8(2), temperature=np.float32(0.5)).tokens == 3
