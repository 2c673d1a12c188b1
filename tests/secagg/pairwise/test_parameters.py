"""The numbers of a round: Bell's table, and that corrupt clients never hold enough shares."""

from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft.errors import ProtocolError
from fedpeft.secagg.pairwise.parameters import COMPLETE, SECURITY, parameters
from fedpeft.secagg.pairwise.tails import sparse
from fedpeft.secagg.trust.manifest import majority

# shared/facts/secure-aggregation.md: k (t) by n, at 2^-40.
TABLE = {
    (0.05, 0.1): [(36, 6), (40, 19), (46, 22), (52, 24), (56, 26)],
    (0.1, 0.1): [(42, 11), (52, 28), (60, 32), (66, 35), (70, 37)],
    (0.2, 0.3): [(94, 21), (158, 72), (206, 94), (222, 101), (242, 110)],
    (0.33, 0.33): [None, (310, 159), (474, 242), (534, 272), (574, 292)],
}


@pytest.mark.parametrize("shares", TABLE)
def test_degrees_and_thresholds_are_those_of_the_table(shares):
    assert [sparse(n, *shares, 40) for n in (100, 10**3, 10**4, 10**5, 10**6)] == TABLE[shares]


def test_an_evening_of_trying_seeds_does_not_help_the_server():
    assert SECURITY == 80
    assert parameters(1000, 0.1, 0.1).degree == 78


@settings(max_examples=300, deadline=None)
@given(st.integers(3, 400), st.sampled_from([0.0, 0.05, 0.1, 0.2, 0.33]), st.sampled_from([0.0, 0.05, 0.1, 0.3]))
def test_what_is_not_refused_is_safe_and_live(n, corrupt, dropout):
    try:
        chosen = parameters(n, corrupt, dropout)
    except ProtocolError as error:
        assert "corrupt" in str(error)
        return
    assert 1 <= chosen.threshold <= chosen.holders <= n - 1
    if chosen.complete:
        assert chosen.threshold > corrupt * n - 1e-6
        assert chosen.holders - dropout * n >= chosen.threshold - 1e-6
    else:
        assert n > COMPLETE
        assert chosen.degree % 2 == 0
    n_min, gone = majority(n, corrupt), ceil(dropout * n - 1e-9)
    # The dropouts that are assumed burn no round, at whatever stage.
    assert n - gone >= n_min
    assert all(left - gone >= chosen.quorum(left, n_min) for left in range(n_min + gone, n + 1))
    for survivors in (n_min, n):
        honest = chosen.quorum(survivors, n_min) - chosen.corrupt
        # No n_min of the survivors can do without a locked honest one.
        assert survivors - honest < n_min
        assert chosen.quorum(survivors, n_min) <= survivors or survivors == n_min


def test_impossible_parameters_are_refused_with_numbers():
    with pytest.raises(ProtocolError, match="4 corrupt and 1 dropouts among 8"):
        parameters(8, 0.49, 0.05)
    with pytest.raises(ProtocolError, match="at least 3"):
        parameters(2, 0.0, 0.0)


@pytest.mark.parametrize(("corrupt", "dropout"), [(0.2, 0.0), (0.33, 0.1), (0.4, 0.05), (0.33, 0.33)])
def test_many_corrupt_clients_need_many_holders(corrupt, dropout):
    chosen = parameters(100, corrupt, dropout)
    assert chosen.threshold > chosen.corrupt


@pytest.mark.parametrize("clients", [9, 50, 300])
def test_dropouts_that_would_burn_every_round_are_refused(clients):
    with pytest.raises(ProtocolError, match=r"of them left; enlarge the cohort or assume less"):
        parameters(clients, 0.4, 0.4)


def test_hundred_clients_share_with_32_holders_and_need_17():
    chosen = parameters(100, 0.1, 0.1)
    assert (chosen.degree, chosen.holders, chosen.threshold, chosen.quorum(100, 56)) == (99, 32, 17, 55)
