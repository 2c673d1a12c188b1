"""A streamed text is the whole text, whatever it is cut into."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedpeft.device.generation import Generation
from fedpeft.device.spelling import before_stop, spell, without_first_space
from fedpeft.errors import FedpeftError

parts = st.lists(st.text("ab c", max_size=4), max_size=12)
stops = st.lists(st.text("ab ", min_size=1, max_size=4), max_size=4)


@settings(deadline=None)
@given(st.lists(st.integers(5, 4000), max_size=30))
@example([100, 101, 102])
def test_streamed_pieces_join_to_the_text_of_all_tokens_even_where_they_are_no_characters(runtime, ids):
    ids = [i % runtime.text.facts.vocabulary for i in ids]
    assert "".join(spell(ids, runtime.text.decode)) == runtime.text.decode(ids)


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), max_size=30))
@example("👩‍👩‍👧‍👦 Grüße żółć")
def test_no_part_of_a_stream_ends_within_a_character(runtime, text):
    found = list(spell(runtime.text.encode(text), runtime.text.decode))
    assert all(part and "\ufffd" not in part for part in found)
    assert "".join(found).strip(" ") == text.strip(" ")


def reference(text: str, stop: list[str]) -> str:
    """Read letter by letter; where a stop text is complete, cut the longest that is."""
    for end in range(1, len(text) + 1):
        complete = [s for s in stop if text[:end].endswith(s)]
        if complete:
            return text[: end - len(max(complete, key=len))]
    return text


@given(parts, stops)
@example(["a", "b", "a", "b"], ["bab", "b a"])
def test_the_text_ends_before_the_first_complete_stop_text_however_it_is_cut(pieces, stop):
    found = list(before_stop(pieces, stop))
    assert "".join(found) == reference("".join(pieces), stop)
    assert all(found)


def test_what_cannot_become_a_stop_text_is_given_out_at_once():
    read = []

    def source():
        for part in ["ab", "c", "x", "EN", "D", "never read"]:
            read.append(part)
            yield part

    stream = before_stop(source(), ["cy", "END"])
    assert next(stream) == "ab" and read == ["ab"]
    assert next(stream) == "cx" and read == ["ab", "c", "x"]
    assert list(stream) == [] and read[-1] == "D"


@given(parts)
def test_only_the_first_spaces_are_dropped(pieces):
    assert "".join(without_first_space(pieces)) == "".join(pieces).lstrip(" ")


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
        ("top_p", 2.0),
    ],
)
def test_options_without_meaning_are_refused_by_name(field, value):
    with pytest.raises(FedpeftError, match=f"{field}: found"):
        Generation(**{field: value})
