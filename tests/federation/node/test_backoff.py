from __future__ import annotations

import pytest

from fedpeft.backoff import Backoff, Pace
from fedpeft.errors import LinkError
from fedpeft.federation.node import Rhythm


def test_waits_are_anywhere_below_a_bound_that_doubles_up_to_the_most() -> None:
    for failures in range(12):
        waits = []
        for _ in range(200):
            backoff = Backoff(1.0, 60.0)
            for _ in range(failures):
                backoff.next()
            waits.append(backoff.next())
        bound = min(60.0, 2.0**failures)
        assert 0 <= min(waits) < 0.1 * bound
        assert 0.9 * bound < max(waits) <= bound


def test_a_success_begins_anew_and_endless_failure_overflows_nothing() -> None:
    backoff = Backoff(1.0, 60.0)
    for _ in range(5_000):
        assert backoff.next() <= 60.0
    backoff.reset()
    assert (backoff.failures, backoff.next() <= 1.0) == (0, True)


def test_the_pace_slows_down_while_nothing_comes_and_an_idle_node_asks_twice_in_three_minutes() -> None:
    rhythm = Rhythm()
    pace = Pace(rhythm.soon, rhythm.most)
    waits = [pace.next() for _ in range(40)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (rhythm.soon, rhythm.most)
    # Each wait is an answer's longest delay: a share of the silence before it.
    assert all(wait <= 0.4 * sum(waits[:i]) + rhythm.soon for i, wait in enumerate(waits))
    assert 1 / rhythm.most + 1 / (0.8 * rhythm.idle) < 1 / 30
    pace.reset()
    assert pace.next() == rhythm.soon


@pytest.mark.parametrize("wrong", [{"soon": 0.0}, {"most": 0.1}, {"busy": 1.0}, {"idle": 4000.0}, {"patience": 90.0}])
def test_a_rhythm_that_a_superlink_would_not_follow_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(LinkError, match="node rhythm"):
        Rhythm(**wrong)
