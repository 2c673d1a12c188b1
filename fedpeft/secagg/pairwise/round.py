"""One round on the server: a queue of stages, each a request to some clients and the replies that come back.

The server asks in order – contributions, survivors, (pairs), lock, unmask – and whoever does not answer, or not exactly
as agreed, is gone from there on:

- before ``survivors``: their contribution is missing; the others give up the seeds shared with them;
- at ``survivors`` or ``pairs``: the set shrinks and is signed again, and ``pairs`` collects the further seeds;
- at ``lock``: a quorum suffices;
- at ``unmask``: t holders of each survivor suffice.

Fewer, and the round is burnt: no share was opened for less than n_min clients, and nothing of it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from fedpeft.errors import ProtocolError, RoundBurnt
from fedpeft.secagg.pairwise.context import RoundContext
from fedpeft.secagg.pairwise.members import to_bitmap
from fedpeft.secagg.pairwise.opening import open_sum, recover
from fedpeft.secagg.pairwise.packing import packed_size, require_packed
from fedpeft.secagg.pairwise.protect import commitment, signed_fields
from fedpeft.secagg.pairwise.ratchet import self_seed
from fedpeft.secagg.pairwise.seal import SEALED
from fedpeft.secagg.pairwise.shamir import PRIME, WIDTH
from fedpeft.secagg.pairwise.statements import CONTRIBUTE, LOCK, REQUEST, REVEAL, SURVIVORS, UNMASK
from fedpeft.secagg.pairwise.wire import contribution_length, pieces, reply_length, require_length, split
from fedpeft.signing.encoding import KEY
from fedpeft.signing.signature import SIGNATURE, SigningKey, sign, verify

REPEATS = 8
"""How often a server asks for survivors before it gives a round up."""

ALERTS = 1000
"""How many refused messages a round remembers."""


@dataclass(frozen=True)
class Contribution:
    """What a client sent, cut up.

    Parameters
    ----------
    vector : memoryview
        Packed y.
    commitment : bytes
    sealed : list of bytes
        In the order of the holders.
    """

    vector: memoryview
    commitment: bytes
    sealed: list[bytes]


class PairwiseRound:
    """Collects one round.

    Parameters
    ----------
    context : RoundContext
    keys : sequence of bytes
        The cohort's certified public keys, in its order.
    server : SigningKey
        Signs the requests.

    Attributes
    ----------
    alerts : list of (str, str)
        Clients whose messages were refused, and why.
    """

    def __init__(self, context: RoundContext, keys: Sequence[bytes], server: SigningKey) -> None:
        self.context, self._keys, self._server = context, keys, server
        self.alerts: list[tuple[str, str]] = []
        self.stage: str | None = "contribute"
        self._taken: dict[int, Contribution] = {}
        self._left: tuple[int, ...] = ()
        self._asked = 0
        self._replied: set[int] = set()
        self._signatures: dict[int, bytes] = {}
        self._seeds: dict[tuple[int, int], bytes] = {}
        self._locks: dict[int, bytes] = {}
        self._shares: dict[int, dict[int, int]] = {}

    @property
    def survivors(self) -> tuple[str, ...]:
        """The clients whose vectors are in the sum, as it stands."""
        return tuple(self.context.cohort[i] for i in self._left or sorted(self._taken))

    def add(self, client: str, message: bytes) -> None:
        """Take a contribution.

        Raises
        ------
        ProtocolError
            When it is refused; to the round the client is then one that vanished.
        """
        self._guarded(client, lambda: self._add(client, message))

    def answer(self, stage: str, client: str, message: bytes) -> None:
        """Take a reply.

        Raises
        ------
        ProtocolError
            When it is refused; to the round the client is then one that vanished.
        """
        self._guarded(client, lambda: self._answer(stage, client, message))

    def requests(self) -> tuple[str, dict[str, bytes]] | None:
        """Close the stage and return the next with its requests, or None when the sum can be opened.

        Raises
        ------
        RoundBurnt
            When too few are left.
        """
        gone = set(self._left) - self._replied
        if self.stage == "contribute":
            self._shrink(sorted(self._taken))
        elif self.stage in ("survivors", "pairs") and gone:
            self._shrink([i for i in self._left if i not in gone])
        elif self.stage == "survivors" and any(self._owed(i) for i in self._left):
            self.stage = "pairs"
        elif self.stage in ("survivors", "pairs"):
            self.stage = "lock"
        elif self.stage == "lock":
            self._require("locks", len(self._locks), self.context.quorum(len(self._left)))
            self.stage = "unmask"
        else:
            self.stage = None
            return None
        self._replied = set()
        return self.stage, {self.context.cohort[i]: self._request(i) for i in self._left}

    def sum(self) -> tuple[NDArray[np.uint64], tuple[str, ...]]:
        """Open the sum modulo 2^bits of the survivors' payloads.

        Returns
        -------
        total : ndarray of uint64, shape (length,)
        contributors : tuple of str

        Raises
        ------
        RoundBurnt
            When a survivor's mask cannot be recovered.
        """
        if self.stage is not None:
            raise ProtocolError("round", self.stage, "all stages over", "call requests() until it returns None")
        masks = [(self_seed(self._secret(i), self.context.digest), 1) for i in self._left]
        left = set(self._left)
        for i, j in self._seeds:
            if i in left and j not in left:
                masks.append((self._seeds[i, j], 1 if i < j else -1))
        vectors = (self._taken[i].vector for i in self._left)
        return open_sum(vectors, self.context.length, self.context.terms.bits, masks), self.survivors

    def _guarded(self, client: str, action: Callable[[], None]) -> None:
        try:
            action()
        except ProtocolError as error:
            self._alert(client, str(error))
            raise

    def _alert(self, client: str, reason: str) -> None:
        if len(self.alerts) < ALERTS:
            self.alerts.append((client, reason))

    def _add(self, client: str, message: bytes) -> None:
        context, i = self.context, self.context.index(client)
        if self.stage != "contribute" or i in self._taken:
            raise ProtocolError(
                f"contribution of {client}", f"during {self.stage}", "one, before the survivors are fixed"
            )
        require_length(f"contribution of {client}", message, contribution_length(context))
        body, signature = message[:-SIGNATURE], message[-SIGNATURE:]
        size = packed_size(context.length, context.terms.bits)
        vector, tail = body[:size], body[size:]
        verify(self._keys[i], signature, client, CONTRIBUTE, *signed_fields(context, client, vector, tail))
        require_packed(vector, context.length, context.terms.bits)
        self._taken[i] = Contribution(memoryview(body)[:size], tail[:KEY], pieces(tail[KEY:], SEALED))

    def _answer(self, stage: str, client: str, message: bytes) -> None:
        i = self.context.index(client)
        if stage != self.stage or i not in self._left or i in self._replied:
            raise ProtocolError(f"{stage} reply of {client}", f"during {self.stage}", "one reply to each request")
        wards, owed = self._wards(i), self._owed(i)
        seeds = owed if stage == "pairs" or (stage == "survivors" and self._asked == 1) else []
        require_length(f"{stage} reply of {client}", message, reply_length(stage, len(seeds), len(wards)))
        if stage == "survivors":
            self._verify(i, message[:SIGNATURE], SURVIVORS)
            if seeds:
                self._take_seeds(i, stage, seeds, message[SIGNATURE:])
            self._signatures[i] = message[:SIGNATURE]
        elif stage == "pairs":
            self._take_seeds(i, stage, seeds, message)
        elif stage == "lock":
            self._verify(i, message, LOCK)
            self._locks[i] = message
        else:
            self._take_shares(i, wards, message)
        self._replied.add(i)

    def _take_seeds(self, i: int, stage: str, owed: list[int], message: bytes) -> None:
        seeds, signature = split(message, KEY * len(owed), SIGNATURE)
        fields = (self.context.digest, stage, self._bitmap(), sha256(seeds).digest())
        verify(self._keys[i], signature, self.context.cohort[i], REVEAL, *fields)
        self._seeds.update(((i, j), seed) for j, seed in zip(owed, pieces(seeds, KEY), strict=True))

    def _take_shares(self, i: int, wards: Mapping[int, int], message: bytes) -> None:
        shares, signature = split(message, WIDTH * len(wards), SIGNATURE)
        self._verify(i, signature, UNMASK, sha256(shares).digest())
        client = self.context.cohort[i]
        for (ward, point), data in zip(wards.items(), pieces(shares, WIDTH), strict=True):
            value = int.from_bytes(data, "big")
            if value < PRIME:
                self._shares.setdefault(ward, {})[point] = value
            else:
                self._alert(self.context.cohort[ward], f"sealed share for {client}: could not be unsealed")

    def _verify(self, i: int, signature: bytes, label: str, *fields: bytes) -> None:
        verify(self._keys[i], signature, self.context.cohort[i], label, self.context.digest, self._bitmap(), *fields)

    def _bitmap(self) -> bytes:
        return to_bitmap(self._left, len(self.context.cohort))

    def _owed(self, i: int) -> list[int]:
        """Return the neighbours outside the survivors whose seeds a client has not given up yet."""
        left = set(self._left)
        return [j for j in self.context.topology.neighbours(i) if j not in left and (i, j) not in self._seeds]

    def _wards(self, i: int) -> dict[int, int]:
        """Return the survivors whose shares a client holds, each with the share's point."""
        left = set(self._left)
        return {ward: place + 1 for place, ward in enumerate(self.context.topology.wards(i)) if ward in left}

    def _shrink(self, left: Sequence[int]) -> None:
        self._require("survivors", len(left), self.context.terms.n_min)
        if self._asked >= REPEATS:
            raise RoundBurnt(self._name, f"{self._asked} times somebody vanished", f"at most {REPEATS}")
        self._left, self._signatures, self.stage = tuple(left), {}, "survivors"
        self._asked += 1

    def _request(self, i: int) -> bytes:
        n, body = len(self.context.cohort), self._bitmap()
        if self.stage in ("pairs", "lock"):
            body += b"".join(self._signatures[j] for j in self._left)
        elif self.stage == "unmask":
            lockers = sorted(self._locks)[: self.context.quorum(len(self._left))]
            sealed = [self._taken[ward].sealed[point - 1] for ward, point in self._wards(i).items()]
            body = to_bitmap(lockers, n) + b"".join(self._locks[j] for j in lockers) + b"".join(sealed)
        fields = (self.context.digest, str(self.stage), sha256(body).digest())
        return body + sign(self._server, REQUEST, *fields)

    def _secret(self, i: int) -> bytes:
        client, taken = self.context.cohort[i], self._taken[i]
        shares, threshold = self._shares.get(i, {}), self.context.parameters.threshold
        self._require(f"shares of {client}", len(shares), threshold)

        def right(secret: bytes) -> bool:
            return commitment(self.context.digest, client, secret) == taken.commitment

        secret = recover(shares, threshold, right)
        if secret is None:
            raise RoundBurnt(self._name, f"shares of {client} that do not fit", "the shares of one secret")
        return secret

    @property
    def _name(self) -> str:
        return f"{self.context.purpose} {self.context.round}"

    def _require(self, what: str, found: int, least: int) -> None:
        if found < least:
            raise RoundBurnt(self._name, f"{found} {what}", f"at least {least}", "the next round starts afresh")
