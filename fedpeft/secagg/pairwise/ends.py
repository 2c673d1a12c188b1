"""``pairwise`` as a channel: the state machines behind the seam that all channels share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpeft.codecs.ring import Ring, RingCodec
from fedpeft.errors import ProtocolError, RunError
from fedpeft.secagg.channel import Asked
from fedpeft.secagg.pairwise.client import PairwiseClient
from fedpeft.secagg.pairwise.parameters import cohort_flaw
from fedpeft.secagg.pairwise.round import PairwiseRound
from fedpeft.secagg.pairwise.server import PairwiseServer
from fedpeft.secagg.pairwise.wire import contribution_length
from fedpeft.secagg.trust.certificate import Revocations


@dataclass(frozen=True)
class PairwiseEnd:
    """A client's end.

    Parameters
    ----------
    client : PairwiseClient
    """

    client: PairwiseClient

    def protect(self, asked: Asked, payload: Ring) -> bytes:
        """Mask a payload."""
        return self.client.contribute(asked.round, asked.purpose, asked.model, asked.cohort, payload)

    def answer(self, stage: str, request: bytes) -> bytes:
        """Answer a stage."""
        return self.client.answer(stage, request)


@dataclass(frozen=True)
class PairwiseCollection:
    """One sum on the server.

    Parameters
    ----------
    round : PairwiseRound
    admit : callable
        Refuses a client whose certificate does not hold any more.
    """

    round: PairwiseRound
    admit: Callable[[str], None] = lambda client: None

    @property
    def length(self) -> int:
        """Bytes of a contribution."""
        return contribution_length(self.round.context)

    def add(self, client: str, data: bytes) -> None:
        """Take a contribution of somebody whose certificate holds."""
        self.admit(client)
        self.round.add(client, data)

    def requests(self) -> tuple[str, dict[str, bytes]] | None:
        """Return the next stage."""
        return self.round.requests()

    def answer(self, stage: str, client: str, data: bytes) -> None:
        """Take a reply."""
        self.round.answer(stage, client, data)

    def sum(self) -> tuple[NDArray[np.uint64], int]:
        """Open the sum of the survivors."""
        total, survivors = self.round.sum()
        return total, len(survivors)


@dataclass(frozen=True)
class PairwiseServerEnd:
    """The server's end of a run.

    Parameters
    ----------
    server : PairwiseServer
    revoked : callable
        Returns the latest revocation list; who is put on it is shut out at once, not only of the next session.
    """

    server: PairwiseServer
    revoked: Callable[[], Revocations] = Revocations

    def present(self, clients: Sequence[str]) -> list[str]:
        """Return those whose certificates hold."""
        return [client for client in clients if self._holds(client)]

    def collect(self, asked: Asked, ring: RingCodec, length: int) -> PairwiseCollection:
        """Begin a sum.

        Raises
        ------
        RunError
            When so many have gone that no cohort is left; a new session may have enough again.
        ProtocolError
            When the manifest speaks of another length or ring.
        """
        manifest, size = self.server.manifest, len(asked.cohort)
        flaw = cohort_flaw(manifest.of(asked.purpose), size, manifest.corrupt, manifest.dropout)
        if flaw is not None:
            raise RunError(f"{asked.purpose} {asked.round}", f"{size} clients whose certificates hold", flaw)
        opened = self.server.open_round(asked.round, asked.purpose, asked.model, asked.cohort)
        terms = opened.context.terms
        if (opened.context.length, terms.bits, terms.levels) != (length, ring.bits, ring.levels):
            found = f"{opened.context.length} coordinates of {terms.bits} bits"
            raise ProtocolError(f"manifest {asked.purpose}", found, f"{length} of {ring.bits}")
        return PairwiseCollection(opened, self._admit)

    def _admit(self, client: str) -> None:
        self.server.revoke(self.revoked())
        self.server.require_current(client)

    def _holds(self, client: str) -> bool:
        try:
            self._admit(client)
        except ProtocolError:
            return False
        return True
