"""A client's labelled examples are split 60 : 20 : 20, alike on every machine, in time or else by label."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpeft.data.labelled import Example, labelled_split
from fedpeft.data.lines import seconds

labels = st.lists(st.integers(0, 6), max_size=80)


def untimed(kinds: list[int]) -> list[Example]:
    return [Example(f"text {i}", kind) for i, kind in enumerate(kinds)]


def parts(split):
    return split.train, split.validation, split.test


@given(labels, st.lists(st.integers(0, 5), min_size=80, max_size=80))
def test_every_example_is_in_exactly_one_part_with_or_without_times(kinds, times):
    timed = [Example(e.text, e.label, float(t)) for e, t in zip(untimed(kinds), times, strict=False)]
    for examples in (untimed(kinds), timed):
        split = labelled_split(examples, "ada")
        assert Counter(e for part in parts(split) for e in part) == Counter(examples)


@given(labels, st.booleans())
def test_the_shares_hold_for_any_number_of_examples(kinds, timed):
    examples = [Example(e.text, e.label, float(i) if timed else 0.0) for i, e in enumerate(untimed(kinds))]
    for part, share in zip(parts(labelled_split(examples, "ada")), (0.6, 0.2, 0.2), strict=True):
        assert abs(len(part) - share * len(examples)) < 1


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, (0, 0, 0)), (1, (1, 0, 0)), (2, (1, 0, 1)), (3, (2, 0, 1)), (4, (2, 1, 1))]
)
def test_of_very_few_examples_the_first_trains_and_the_second_tests(count, sizes):
    assert tuple(map(len, parts(labelled_split(untimed([0] * count), "ada")))) == sizes


@given(labels)
def test_without_times_each_label_is_shared_out_alike(kinds):
    split = labelled_split(untimed(kinds), "ada")
    for label, count in Counter(kinds).items():
        for part, share in zip(parts(split), (0.6, 0.2, 0.2), strict=True):
            assert abs(sum(e.label == label for e in part) - share * count) < 1.5


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(-5, 5)), max_size=60))
def test_where_times_differ_what_comes_later_tests(pairs):
    examples = [Example(f"text {i}", kind, float(time)) for i, (kind, time) in enumerate(pairs)]
    split = labelled_split(examples, "ada")
    if len({e.time for e in examples}) > 1:
        times = [e.time for part in parts(split) for e in part]
        assert times == sorted(times)


def test_the_split_hangs_on_the_clients_name_and_on_nothing_else():
    examples = untimed([0, 1, 2, 3] * 25)
    assert labelled_split(examples, "ada") == labelled_split(examples, "ada")
    assert labelled_split(examples, "ada") != labelled_split(examples, "bob")
    # What it first gave: a change would move people's test examples into their training ones.
    assert [e.text for e in labelled_split(examples, "ada").test[:4]] == ["text 46", "text 2", "text 36", "text 60"]


def test_the_last_few_of_a_part_are_of_many_labels():
    """Training may keep only the latest examples; without times these are a sample, not the last label."""
    train = labelled_split(untimed([i // 20 for i in range(200)]), "ada").train
    assert len({e.label for e in train[-20:]}) >= 6


def test_times_are_read_as_those_of_messages_are():
    assert seconds("1970-01-01T00:01:00Z", "here") == seconds(60, "here") == 60.0
