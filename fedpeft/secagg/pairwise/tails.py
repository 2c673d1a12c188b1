r"""When a sparse graph is as good as the complete one, in exact integer arithmetic so that all parties agree.

A client with k random neighbours among n − 1, of whom c are corrupt and o drop out, is safe and live when (Bell,
Bonawitz, Gascón, Lepoint & Raykova 2020, CCS, section 3)::

    n P[Hyp(n − 1, c, k) ≥ t]      ≤ 2^-σ      no client's corrupt neighbours hold t shares
    n P[Hyp(n − 1, o, k) > k − t]  ≤ 2^-η      no client's surviving neighbours hold fewer than t
    n (γ + δ)^(k/2)                ≤ 2^-σ      the honest survivors stay connected
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import comb, log2

LIVE = 30
"""η: a round fails by bad luck with probability 2^-30 at most."""


@lru_cache(maxsize=256)
def sparse(clients: int, corrupt: float, dropout: float, security: int) -> tuple[int, int] | None:
    """Return the least degree k and its threshold t, or None when only the complete graph will do.

    Parameters
    ----------
    clients : int
        n.
    corrupt, dropout : float
        Shares γ and δ of the clients.
    security : int
        σ.

    Returns
    -------
    tuple of int, optional
        Degrees are even; above 60 every second even one is tried.
    """
    others, bad, gone = clients - 1, int(corrupt * clients), int(dropout * clients)
    lost = corrupt + dropout
    for k in _degrees(clients):
        if lost > 0 and log2(clients) + k / 2 * log2(lost) > -security:
            continue
        total = comb(others, k)
        t = _first_rare(others, bad, k, total // (clients << security))
        if t <= k and _tail(others, gone, k, k - t + 1) * clients << LIVE <= total:
            return k, t
    return None


def _degrees(clients: int) -> Iterator[int]:
    yield from range(2, min(clients - 1, 61), 2)
    yield from range(62, min(clients - 1, 2001), 4)


def _terms(others: int, marked: int, k: int) -> Iterator[tuple[int, int]]:
    """Yield (i, ways that exactly i of k drawn are marked) from the largest i down."""
    i = min(k, marked)
    ways = comb(marked, i) * comb(others - marked, k - i)
    while i >= max(0, k - (others - marked)):
        yield i, ways
        ways = ways * i * (others - marked - k + i) // ((marked - i + 1) * (k - i + 1)) if i else 0
        i -= 1


def _tail(others: int, marked: int, k: int, least: int) -> int:
    """Return in how many ways at least so many of k drawn are marked."""
    return sum(ways for i, ways in _terms(others, marked, k) if i >= least)


def _first_rare(others: int, marked: int, k: int, allowed: int) -> int:
    """Return the least t such that at least t marked are drawn in no more than the allowed number of ways."""
    total, t = 0, min(k, marked) + 1
    for i, ways in _terms(others, marked, k):
        total += ways
        if total > allowed:
            break
        t = i
    return max(t, 1)
