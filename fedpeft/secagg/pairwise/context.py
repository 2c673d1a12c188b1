"""A round as both sides see it: what it is bound to and every number that follows from it.

::

    ctx = H(enc("round", manifest digest, run, round, purpose, model hash, ordered cohort))

A client that is shown another model, another cohort or another manifest has another ctx; its masks, seals and
signatures then fit nobody else's, and no sum comes out. The graph's seed leaves the model out: a server may choose a
model freely, and should not be able to choose the graph with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from fedpeft.errors import ProtocolError
from fedpeft.secagg.pairwise.parameters import Parameters, parameters
from fedpeft.secagg.pairwise.topology import Topology
from fedpeft.secagg.trust.manifest import Manifest, Terms
from fedpeft.signing.encoding import digest, enc


@dataclass(frozen=True)
class RoundContext:
    """One round for one purpose.

    Parameters
    ----------
    manifest : Manifest
    round : int
    purpose : str
    model : str
        Hash of the model that the round starts from.
    cohort : tuple of str
        Ascending.
    """

    manifest: Manifest
    round: int
    purpose: str
    model: str
    cohort: tuple[str, ...]

    @classmethod
    def of(cls, manifest: Manifest, round_: int, purpose: str, model: str, cohort: Sequence[str]) -> RoundContext:
        """Check a round against the manifest.

        Raises
        ------
        ProtocolError
            When the round, purpose or cohort is not one that the manifest allows.
        """
        return _checked(manifest, round_, purpose, model, tuple(cohort))

    @cached_property
    def digest(self) -> bytes:
        """What everything in the round is bound to: ctx."""
        manifest = self.manifest
        cohort = enc("cohort", *self.cohort)
        return digest("round", manifest.digest, manifest.run, self.round, self.purpose, self.model, cohort)

    @cached_property
    def terms(self) -> Terms:
        """What is summed."""
        return self.manifest.of(self.purpose)

    @cached_property
    def parameters(self) -> Parameters:
        """The numbers of the round."""
        return parameters(len(self.cohort), self.manifest.corrupt, self.manifest.dropout)

    @cached_property
    def topology(self) -> Topology:
        """The graph of the round."""
        manifest = self.manifest
        cohort = enc("cohort", *self.cohort)
        seed = digest("graph", manifest.digest, manifest.run, self.round, self.purpose, cohort)
        return Topology(seed, self.parameters)

    @property
    def step(self) -> int:
        """The round's number on the run's clock."""
        return self.manifest.step(self.round, self.purpose)

    @property
    def length(self) -> int:
        """Ring coordinates of a payload."""
        return self.terms.length(self.round)

    def index(self, client: str) -> int:
        """Return a client's place in the cohort.

        Raises
        ------
        ProtocolError
            When it has none.
        """
        if client not in self._index:
            raise ProtocolError("client", client, "a client of the cohort")
        return self._index[client]

    @cached_property
    def _index(self) -> dict[str, int]:
        return {client: i for i, client in enumerate(self.cohort)}

    def quorum(self, survivors: int) -> int:
        """Return how many locks a set of so many survivors needs."""
        return self.parameters.quorum(survivors, self.terms.n_min)


@lru_cache(maxsize=16)
def _checked(manifest: Manifest, round_: int, purpose: str, model: str, cohort: tuple[str, ...]) -> RoundContext:
    """Check a round; kept, because the same one is asked about at every stage."""
    terms = manifest.of(purpose)
    manifest.step(round_, purpose)
    ordered = tuple(sorted(set(cohort)))
    if len(ordered) != len(cohort) or not terms.n_min <= len(cohort) <= terms.n_max:
        found = f"{len(cohort)} clients, {len(ordered)} different"
        raise ProtocolError("cohort", found, f"{terms.n_min} to {terms.n_max} different ones")
    context = RoundContext(manifest, round_, purpose, model, ordered)
    _ = context.parameters
    return context
