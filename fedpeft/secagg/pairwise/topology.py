"""Who is whose neighbour and holder: clients on a ring in a seeded order, related by distances on the ring.

In the complete graph the neighbours are all others and the holders of a client are the h next ones. A k-regular graph
takes ± k/2 distances drawn from the seed (a circulant graph, k-regular to the point; with distances at random it has no
narrow places at which a server could cut a group off by leaving a few clients out, as it could between consecutive
neighbours), and the neighbours are the holders.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from fedpeft.secagg.pairwise.parameters import Parameters
from fedpeft.signing.encoding import digest


@dataclass(frozen=True)
class Topology:
    """The graph of a round; clients are numbered by their place in the sorted cohort.

    Parameters
    ----------
    seed : bytes
        Public.
    parameters : Parameters
    """

    seed: bytes
    parameters: Parameters

    @cached_property
    def _ring(self) -> list[int]:
        return sorted(range(self.parameters.clients), key=lambda i: digest("place", self.seed, i))

    @cached_property
    def _place(self) -> list[int]:
        places = [0] * len(self._ring)
        for place, client in enumerate(self._ring):
            places[client] = place
        return places

    @cached_property
    def _distances(self) -> tuple[int, ...]:
        """Distances to a client's holders; the one at place a goes with the share at a + 1."""
        chosen = self.parameters
        if chosen.complete:
            return tuple(range(1, chosen.holders + 1))
        half = range(1, (chosen.clients - 1) // 2 + 1)
        some = sorted(half, key=lambda s: digest("distance", self.seed, s))[: chosen.degree // 2]
        return tuple(some) + tuple(-s for s in some)

    def neighbours(self, client: int) -> tuple[int, ...]:
        """Return with whom a client masks, in ascending order."""
        if self.parameters.complete:
            return tuple(i for i in range(self.parameters.clients) if i != client)
        return tuple(sorted(self.holders(client)))

    def holders(self, client: int) -> tuple[int, ...]:
        """Return to whom a client's shares go: the one at place a gets the share at a + 1."""
        place, n = self._place[client], len(self._ring)
        return tuple(self._ring[(place + distance) % n] for distance in self._distances)

    def wards(self, holder: int) -> tuple[int, ...]:
        """Return whose shares a client holds: of the one at place a it holds the share at a + 1."""
        place, n = self._place[holder], len(self._ring)
        return tuple(self._ring[(place - distance) % n] for distance in self._distances)
