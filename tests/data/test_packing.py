"""Short examples in few rows: nothing lost, nothing cut, hardly more rows than the fewest possible."""

from itertools import count, pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft.data.packing import first_fit_decreasing, packed, padded
from fedpeft.data.replies import Example
from fedpeft.data.windows import IGNORED

ROOM = 12
sizes = st.lists(st.integers(2, ROOM), max_size=40)


def examples(lengths: list[int]) -> list[Example]:
    pieces = count(1)
    ids = [[next(pieces) for _ in range(length)] for length in lengths]
    return [Example(own, [IGNORED, *own[1:]]) for own in ids]


@given(sizes)
def test_everything_lies_in_one_row_none_overflows_and_no_two_rows_would_fit_into_one(lengths):
    rows = first_fit_decreasing(lengths, ROOM)
    assert sorted(thing for row in rows for thing in row) == list(range(len(lengths)))
    filled = [sum(lengths[thing] for thing in row) for row in rows]
    assert all(0 < used <= ROOM for used in filled)
    assert all(a + b > ROOM for i, a in enumerate(filled) for b in filled[:i])
    assert rows == sorted(sorted(row) for row in rows)


def fewest(lengths: tuple[int, ...], free: tuple[int, ...] = ()) -> int:
    """Try every row for every thing."""
    if not lengths:
        return len(free)
    first, rest = lengths[0], lengths[1:]
    options = [fewest(rest, (*free, ROOM - first))]
    options += [fewest(rest, (*free[:i], left - first, *free[i + 1 :])) for i, left in enumerate(free) if left >= first]
    return min(options)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, ROOM), max_size=7))
def test_there_are_hardly_more_rows_than_the_fewest_possible(lengths):
    assert len(first_fit_decreasing(lengths, ROOM)) <= 11 / 9 * fewest(tuple(lengths)) + 6 / 9


@given(sizes)
def test_a_row_holds_its_examples_whole_each_with_positions_of_its_own(lengths):
    given_ = examples(lengths)
    made = packed(given_, ROOM, pad=0)
    found = []
    for ids, labels, positions in zip(made.ids, made.labels, made.positions, strict=True):
        begins = [*np.flatnonzero((positions == 0) & (ids != 0)), int((ids != 0).sum())]
        for begin, end in pairwise(begins):
            assert positions[begin:end].tolist() == list(range(end - begin))
            found.append(Example(ids[begin:end].tolist(), labels[begin:end].tolist()))
        assert (positions[ids == 0] == 0).all()
        assert (labels[ids == 0] == IGNORED).all()
    assert sorted(found, key=lambda e: e.ids[0]) == given_
    assert made.tokens == padded(given_, ROOM, pad=0).tokens == sum(length - 1 for length in lengths)


def test_without_packing_each_example_has_its_row_and_no_positions():
    made = padded(examples([3, 2]), 4, pad=9)
    assert made.ids.tolist() == [[1, 2, 3, 9], [4, 5, 9, 9]]
    assert made.positions is None
    assert padded([], 4, pad=9).ids.shape == packed([], 4, pad=9).positions.shape == (0, 4)


def test_some_of_the_rows_keep_their_positions():
    made = packed(examples([6, 5, 6, 7]), ROOM, pad=0)
    assert made.head(1).positions.tolist() == made.positions[:1].tolist()
    assert made[np.array([1])].ids.tolist() == made.ids[1:].tolist()
