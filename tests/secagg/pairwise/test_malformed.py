"""Altered messages of every kind are refused, and the true one is taken afterwards; the benchmark tries thousands."""

from fedpeft.bench.secagg_dropouts import play
from fedpeft.bench.secagg_fuzz import fuzz


def test_no_altered_message_of_any_kind_is_taken():
    tally = fuzz(60)
    assert (tally.accepted, tally.crashed) == (0, 0)
    assert len(tally.tried) == 14
    assert set(tally.tried.values()) == {60}


def test_the_benchmarks_rounds_are_exact_too():
    outcome = play(40)
    assert (outcome.patterns, outcome.wrong) == (40, 0)
    assert 0 < outcome.burnt < 20
