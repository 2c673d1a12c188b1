"""A server with the right key and the wrong intentions: it writes whole, signed requests about whatever it likes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

import numpy as np

from fedpeft.secagg.pairwise.members import to_bitmap
from fedpeft.secagg.pairwise.rehearsal import Rehearsal
from fedpeft.secagg.pairwise.round import PairwiseRound
from fedpeft.secagg.pairwise.statements import LOCK, REQUEST, SURVIVORS
from fedpeft.signing.signature import SIGNATURE, sign

NAMES = [f"client{i}" for i in range(8)]
"""One of them may be corrupt, two may vanish, five make a sum."""

LENGTH = 5
EVERYBODY = range(len(NAMES))


def payloads(names: Sequence[str] = NAMES, length: int = LENGTH) -> dict[str, np.ndarray]:
    """Return other numbers for everybody."""
    return {name: np.arange(length, dtype=np.uint16) + 100 * (i + 1) for i, name in enumerate(names)}


class Crook:
    """The server of one round in which everybody contributed.

    Parameters
    ----------
    run : Rehearsal
    round_ : int
    corrupt : iterable of int
        Clients whose signing keys it has.
    """

    def __init__(self, run: Rehearsal, round_: int = 1, corrupt: Iterable[int] = ()) -> None:
        self.sent = payloads(list(run.clients))
        self._open(run, run.contributed(round_, self.sent), corrupt)

    @classmethod
    def of(cls, run: Rehearsal, collected: PairwiseRound) -> Crook:
        """Return the server of a round that has been opened already."""
        crook = cls.__new__(cls)
        crook._open(run, collected, ())
        return crook

    def _open(self, run: Rehearsal, collected: PairwiseRound, corrupt: Iterable[int]) -> None:
        self.run, self.round, self.corrupt = run, collected, set(corrupt)
        self.context = collected.context

    def request(self, stage: str, members: Iterable[int], proof: bytes = b"") -> bytes:
        """Write and sign a request about some clients."""
        body = to_bitmap(members, len(self.context.cohort)) + proof
        return body + sign(self.run.server._key, REQUEST, self.context.digest, stage, sha256(body).digest())

    def ask(self, stage: str, client: int, members: Iterable[int], proof: bytes = b"") -> bytes:
        """Ask one client."""
        return self.run.clients[self.context.cohort[client]].answer(stage, self.request(stage, members, proof))

    def survivors(self, members: Sequence[int], asked: Iterable[int] | None = None) -> dict[int, bytes]:
        """Have a set signed by its members, corrupt ones by ourselves."""
        signatures = {i: self._forge(i, SURVIVORS, members) for i in self.corrupt & set(members)}
        for i in members if asked is None else asked:
            if i not in self.corrupt:
                signatures[i] = self.ask("survivors", i, members)[:SIGNATURE]
        return signatures

    def locks(self, members: Sequence[int], asked: Iterable[int] | None = None) -> dict[int, bytes]:
        """Have a set that all its members signed locked."""
        proof = b"".join(signature for _, signature in sorted(self.survivors(members).items()))
        locks = {i: self._forge(i, LOCK, members) for i in self.corrupt & set(members)}
        for i in members if asked is None else asked:
            if i not in self.corrupt:
                locks[i] = self.ask("lock", i, members, proof)
        return locks

    def opening(self, client: int, members: Sequence[int], locks: dict[int, bytes], count: int | None = None) -> bytes:
        """Write the request that asks a client for the shares of some members, on the strength of some locks."""
        quorum = self.context.quorum(len(members)) if count is None else count
        some = sorted(locks)[:quorum]
        return self.request("unmask", some, b"".join(locks[i] for i in some) + self.sealed(client, members))

    def sealed(self, client: int, members: Iterable[int]) -> bytes:
        """Return the shares of some members that are sealed for a client."""
        members, topology = set(members), self.context.topology
        wards = [ward for ward in topology.wards(client) if ward in members]
        return b"".join(self.round._taken[w].sealed[topology.holders(w).index(client)] for w in wards)

    def _forge(self, client: int, statement: str, members: Iterable[int]) -> bytes:
        key = self.run.identities[self.context.cohort[client]].key
        return sign(key, statement, self.context.digest, to_bitmap(members, len(self.context.cohort)))
