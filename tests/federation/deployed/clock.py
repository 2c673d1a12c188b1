"""A process whose clock is wrong, as far as Flower and the node look at it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def an_hour_ahead() -> None:
    """Set this process's clock, as far as Flower and the node look at it."""
    from flwr.app.message import message

    from fedpeft.federation import flower_fleet

    class Fast(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(hours=1)

    flower_fleet.datetime = Fast
    message.now = lambda: datetime.now(UTC) + timedelta(hours=1)
