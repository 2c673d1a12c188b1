"""The graph: symmetric, regular, the same for everybody, and holders and wards are each other's inverse."""

import pytest

from fedpeft.secagg.pairwise.parameters import Parameters, parameters
from fedpeft.secagg.pairwise.topology import Topology


@pytest.mark.parametrize("n", [3, 10, 40, 100, 129, 200, 501])
def test_holders_and_wards_are_inverse_and_neighbours_mutual(n):
    chosen = parameters(n, 0.1, 0.1 if n > 4 else 0.0)
    graph = Topology(b"seed", chosen)
    for i in range(n):
        holders, neighbours = graph.holders(i), graph.neighbours(i)
        assert len(set(holders)) == chosen.holders
        assert len(set(neighbours)) == chosen.degree
        assert i not in holders
        assert i not in neighbours
        assert list(neighbours) == sorted(neighbours)
        assert all(i in graph.neighbours(j) for j in neighbours)
        assert all(graph.wards(j)[place] == i for place, j in enumerate(holders))


def test_the_seed_decides():
    chosen = Parameters(200, 20, 60, 60, 30)
    assert Topology(b"a", chosen).neighbours(0) == Topology(b"a", chosen).neighbours(0)
    assert Topology(b"a", chosen).neighbours(0) != Topology(b"b", chosen).neighbours(0)


def test_leaving_out_few_clients_cuts_no_group_off():
    """Between consecutive neighbours on a ring, k well chosen absentees would cut a group off."""
    n = 300
    graph = Topology(b"seed", parameters(n, 0.1, 0.1))
    around = {i: set(graph.neighbours(i)) for i in range(n)}
    group = set(graph._ring[:40])
    outside = set().union(*(around[i] for i in group)) - group
    assert len(outside) > n - len(group) - 20
