"""Which methods nothing else beats: as good for fewer bytes, or better for as many."""

from __future__ import annotations

from collections.abc import Sequence

from fedpeft.compare.row import Row


def front(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that no other is at least as good as with no more bytes sent, from few bytes to many."""
    kept: list[Row] = []
    for row in sorted(rows, key=lambda row: (row.bytes_up, -row.quality)):
        if not kept or row.quality > kept[-1].quality:
            kept.append(row)
    return kept
