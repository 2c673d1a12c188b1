"""How much a local store keeps, and for how long: the oldest leave first."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from fedpeft.errors import StoreError

DAY = 86_400.0

_OUT_OF_ROOM = """
DELETE FROM examples WHERE number IN (
    SELECT number FROM (
        SELECT number, row_number() OVER latest AS place, sum(size) OVER latest AS total
        FROM examples WINDOW latest AS (ORDER BY time DESC, number DESC ROWS UNBOUNDED PRECEDING)
    ) WHERE place > ? OR total > ?
)
"""


@dataclass(frozen=True, slots=True)
class Retention:
    """Limits of a store.

    Parameters
    ----------
    days : float
        Age of the oldest message kept, by the time it was written.
    count : int
        Messages kept.
    bytes : int
        Of all sealed messages together.

    Raises
    ------
    StoreError
        When a limit is not positive.
    """

    days: float = 180.0
    count: int = 20_000
    bytes: int = 32 << 20

    def __post_init__(self) -> None:
        for field in ("days", "count", "bytes"):
            if not getattr(self, field) > 0:
                raise StoreError(f"retention.{field}", getattr(self, field), "more than 0")

    def oldest(self, now: float) -> float:
        """Return the time before which nothing is kept."""
        return now - self.days * DAY

    def require(self, time: float, size: int, now: float) -> None:
        """Refuse a message that would be dropped at once.

        Raises
        ------
        StoreError
        """
        if time < self.oldest(now):
            raise StoreError("time", f"{(now - time) / DAY:.0f} days ago", f"at most {self.days:g} days, the retention")
        if size > self.bytes:
            raise StoreError("text", f"{size} bytes sealed", f"at most {self.bytes}, the retention")

    def apply(self, connection: sqlite3.Connection, now: float) -> int:
        """Delete what is too old or too much, in the caller's transaction; return how many messages that was."""
        gone = connection.execute("DELETE FROM examples WHERE time < ?", (self.oldest(now),)).rowcount
        count, size = connection.execute("SELECT count(*), coalesce(sum(size), 0) FROM examples").fetchone()
        if count > self.count or size > self.bytes:
            gone += connection.execute(_OUT_OF_ROOM, (self.count, self.bytes)).rowcount
        return gone
