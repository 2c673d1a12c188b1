"""From (n, γ, δ) to who masks with whom, who holds whose shares, and how many are needed.

Up to :data:`COMPLETE` clients everybody masks with everybody, and a client's self-mask is shared with the next h
clients of a seeded ring; c = ⌈γn⌉ clients may be corrupt and o = ⌈δn⌉ may vanish::

    h = min(n − 1, max(32, 2o + c + 2, 2c)),    t = ⌊h/2⌋ + 1,    t > c,    h − o ≥ t,    n − o ≥ ⌊(n + c)/2⌋ + 1

so that all corrupt clients together never hold t shares of anybody, wherever they sit, the loss of o holders is
survived, whoever they are, and those who are left are enough to be opened. Above, neighbours are also holders; k and t
come from :mod:`~fedpeft.secagg.pairwise.tails`. There σ is 80 instead of the customary 40: the server chooses the
cohort and so could try seeds until the graph pleases it, and 2^40 tries must not help.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil

from fedpeft.errors import ProtocolError
from fedpeft.secagg.pairwise.tails import sparse
from fedpeft.secagg.trust.manifest import Terms, corrupt_count, majority

COMPLETE = 128
SECURITY = 80
_HOLDERS = 32


@dataclass(frozen=True)
class Parameters:
    """The numbers of a round.

    Parameters
    ----------
    clients : int
        n.
    corrupt : int
        c, clients that may collude with the server.
    degree : int
        Neighbours of each client.
    holders : int
        h, clients among whom a self-mask's seed is shared.
    threshold : int
        t, shares that give it back.
    """

    clients: int
    corrupt: int
    degree: int
    holders: int
    threshold: int

    @property
    def complete(self) -> bool:
        """Whether everybody masks with everybody."""
        return self.degree == self.clients - 1

    def quorum(self, survivors: int, n_min: int) -> int:
        """Return how many must have locked a set of survivors before anybody opens a share for it.

        So many honest clients stay with the set that no other set of n_min can do without them.
        """
        return survivors - n_min + 1 + self.corrupt


@lru_cache(maxsize=256)
def parameters(clients: int, corrupt: float, dropout: float) -> Parameters:
    """Return a round's numbers.

    Raises
    ------
    ProtocolError
        When no choice is safe and live, with the numbers that do not fit.
    """
    if clients < 3:
        raise ProtocolError("cohort", clients, "at least 3 clients", "of a sum of two each learns the other's part")
    bad, gone = corrupt_count(clients, corrupt), ceil(dropout * clients - 1e-9)
    least = majority(clients, corrupt)
    if clients - gone < least:
        raise ProtocolError(
            "corrupt and dropout",
            f"{bad} corrupt and {gone} dropouts among {clients}",
            f"at least {least} of them left",
            "enlarge the cohort or assume less",
        )
    if clients > COMPLETE:
        found = sparse(clients, corrupt, dropout, SECURITY)
        if found is not None:
            return Parameters(clients, bad, found[0], *found)
    holders = min(clients - 1, max(_HOLDERS, 2 * gone + bad + 2, 2 * bad))
    threshold = holders // 2 + 1
    if threshold <= bad or holders - gone < threshold:
        raise ProtocolError(
            "corrupt and dropout",
            f"{bad} corrupt and {gone} dropouts among {clients}",
            f"fewer than {threshold} corrupt and at most {holders - threshold} dropouts with {holders} holders",
            "enlarge the cohort or assume less",
        )
    return Parameters(clients, bad, clients - 1, holders, threshold)


def cohort_flaw(terms: Terms, clients: int, corrupt: float, dropout: float) -> str | None:
    """Return what is expected instead of so many clients for one purpose; None when they will do."""
    size = min(clients, terms.n_max)
    if size < terms.n_min:
        return f"at least {terms.n_min} of {terms.n_max}"
    try:
        parameters(size, corrupt, dropout)
    except ProtocolError as error:
        return f"a cohort that works; {error}"
    return None
