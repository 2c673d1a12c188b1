"""What a client has said in its last round."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from fedpeft.errors import ProtocolError
from fedpeft.secagg.pairwise.context import RoundContext
from fedpeft.secagg.trust.manifest import Manifest


@dataclass(frozen=True)
class Record:
    """One round of one client; sets of clients are bitmaps as integers.

    Parameters
    ----------
    step, round, purpose, model, cohort
        Which round.
    asked : int
        How often survivors were asked for.
    signed : int
        The survivors signed last.
    revealed : int
        Peers whose pair seed was given up.
    locked, answered : bool
        Whether the signed survivors are final, and whether shares were opened.
    """

    step: int
    round: int
    purpose: str
    model: str
    cohort: tuple[str, ...]
    asked: int = 0
    signed: int = 0
    revealed: int = 0
    locked: bool = False
    answered: bool = False

    @classmethod
    def begin(cls, context: RoundContext) -> Record:
        """Open a round's record."""
        return cls(context.step, context.round, context.purpose, context.model, context.cohort)

    def context(self, manifest: Manifest) -> RoundContext:
        """Return the round that this is the record of."""
        return RoundContext.of(manifest, self.round, self.purpose, self.model, self.cohort)

    def signing(self, survivors: int) -> Record:
        """Note a set of survivors that is about to be signed."""
        return replace(self, asked=self.asked + 1, signed=survivors)

    def revealing(self, peers: int) -> Record:
        """Note peers whose pair seeds are about to be given up."""
        return replace(self, revealed=self.revealed | peers)

    def locking(self) -> Record:
        """Note that the signed survivors are about to become final."""
        return replace(self, locked=True)

    def answering(self) -> Record:
        """Note that shares are about to be opened."""
        return replace(self, answered=True)

    def to_bytes(self) -> bytes:
        """Return JSON."""
        return json.dumps(vars(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Record:
        """Read what :meth:`to_bytes` wrote.

        Raises
        ------
        ProtocolError
            When the file is damaged: a client that does not know what it said says nothing more.
        """
        try:
            fields = json.loads(data)
            return cls(**{**fields, "cohort": tuple(fields["cohort"])})
        except (ValueError, TypeError, KeyError) as error:
            raise ProtocolError("round record", str(error)[:80], "a whole record", "leave this run") from error
