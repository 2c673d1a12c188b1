"""Several examples in one row, none of which sees another: a row costs the same however full it is.

First-fit decreasing (Johnson 1973): the longest example first, each into the first row with room for it; at most 11/9
of the fewest rows possible, and 6/9 of a row. Positions begin anew at 0 in every example of a row, which is how a model
tells them apart. Rows go by their earliest example, and so do examples within a row: the latest stay last.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedpeft.data.replies import Example
from fedpeft.data.windows import IGNORED, Windows


def first_fit_decreasing(sizes: Sequence[int], room: int) -> list[list[int]]:
    """Divide things of given sizes into as few rows as first-fit decreasing finds.

    Parameters
    ----------
    sizes : sequence of int
        Each at most ``room``.
    room : int

    Returns
    -------
    list of lists of int
        The things of each row, in order; rows in order of their first.
    """
    rows: list[list[int]] = []
    free: list[int] = []
    for thing in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        row = next((r for r, left in enumerate(free) if left >= sizes[thing]), None)
        if row is None:
            rows.append([thing])
            free.append(room - sizes[thing])
        else:
            rows[row].append(thing)
            free[row] -= sizes[thing]
    return sorted(sorted(row) for row in rows)


def packed(examples: Sequence[Example], length: int, pad: int) -> Windows:
    """Lay examples into as few rows as fit them, with positions.

    Parameters
    ----------
    examples : sequence of Example
        Of at most ``length`` tokens.
    length : int
        Tokens of a row.
    pad : int
        Fills rows up; each of these is at position 0, and so sees nothing.
    """
    rows = first_fit_decreasing([len(example.ids) for example in examples], length)
    made = _blank(len(rows), length, pad)
    positions = np.zeros((len(rows), length), np.int32)
    for i, row in enumerate(rows):
        at = 0
        for example in (examples[j] for j in row):
            stop = at + len(example.ids)
            made.ids[i, at:stop], made.labels[i, at:stop] = example.ids, example.labels
            positions[i, at:stop] = np.arange(stop - at)
            at = stop
    return Windows(made.ids, made.labels, positions)


def padded(examples: Sequence[Example], length: int, pad: int) -> Windows:
    """Lay each example into a row of its own."""
    made = _blank(len(examples), length, pad)
    for i, example in enumerate(examples):
        made.ids[i, : len(example.ids)], made.labels[i, : len(example.labels)] = example.ids, example.labels
    return made


def _blank(count: int, length: int, pad: int) -> Windows:
    return Windows(np.full((count, length), pad, np.int32), np.full((count, length), IGNORED, np.int32))
