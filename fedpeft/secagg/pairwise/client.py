"""The client's side of ``pairwise``, message by message; bytes in, bytes out.

1. ``keys`` – a fresh X25519 key for the run, signed; ``meet`` – those of the peers, each checked against the registry.
2. ``contribute`` – y = x + PRG(b) + Σ_j ± PRG(seed_ij) mod 2^bits, with the shares of b sealed for their holders.
3. ``survivors`` – sign the set U that the server says is left, and give up the seeds shared with those who are not.
   Asked again for a smaller U, the client signs only; ``pairs`` then shows it the signatures of all of U, and gets
   the further seeds.
4. ``lock`` – shown the signatures of all of U, promise to sign no other set.
5. ``unmask`` – shown the promises of a quorum, open the shares of b_i for i in U.

What the order is for. A client's b and all its pair seeds together would open its vector, so the b of clients in U are
opened, and the seeds of pairs that reach outside U. Two sets that hold n_min clients share an honest one, which signs
smaller and smaller sets only, so sets signed by all their members are nested; and a set that a quorum has locked cannot
be followed by a smaller one, because every set of n_min needs somebody who has promised. So shares are opened for one U
in a round, whatever the server says to whom (Bonawitz et al. 2017, CCS, where U is signed but never shrinks).

Whatever is said is first written to the :class:`~fedpeft.secagg.pairwise.log.RoundLog`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from hashlib import sha256

from fedpeft.codecs.ring import Ring
from fedpeft.errors import ProtocolError
from fedpeft.secagg.pairwise.context import RoundContext
from fedpeft.secagg.pairwise.log import RoundLog
from fedpeft.secagg.pairwise.members import bitmap_size, from_bitmap, to_bitmap
from fedpeft.secagg.pairwise.peers import Entry, Peers, read_directory
from fedpeft.secagg.pairwise.protect import protect, require_payload
from fedpeft.secagg.pairwise.ratchet import mask_seed
from fedpeft.secagg.pairwise.record import Record
from fedpeft.secagg.pairwise.seal import SEALED, unseal
from fedpeft.secagg.pairwise.shamir import WIDTH
from fedpeft.secagg.pairwise.statements import LOCK, REQUEST, REVEAL, SURVIVORS, UNMASK, check_all
from fedpeft.secagg.pairwise.wire import pieces, request_length, require_length
from fedpeft.secagg.trust.certificate import Revocations
from fedpeft.secagg.trust.identity import Identity
from fedpeft.secagg.trust.manifest import SignedManifest
from fedpeft.secagg.trust.policy import Policy
from fedpeft.signing.signature import SIGNATURE, sign, verify

UNREADABLE = b"\xff" * WIDTH
"""Stands for a share that could not be unsealed; no field element."""


class PairwiseClient:
    """One client in one run.

    Parameters
    ----------
    identity : Identity
    policy : Policy
    manifest : SignedManifest
        Refused when the operator did not sign it or the policy forbids it.
    log : RoundLog
        Of this client and run.
    revoked : Revocations, optional
    clock : callable, optional
        Unix seconds.
    """

    def __init__(
        self,
        identity: Identity,
        policy: Policy,
        manifest: SignedManifest,
        log: RoundLog,
        revoked: Revocations | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.manifest = policy.accept(manifest)
        self._identity, self._policy, self._log, self._clock = identity, policy, log, clock
        self._revoked = Revocations()
        self._cached: tuple[bytes, Peers] | None = None
        self.revoke(revoked or Revocations())

    @property
    def client(self) -> str:
        """The client's name."""
        return self._identity.client

    def revoke(self, revoked: Revocations) -> None:
        """Take a revocation list; an older one than the last is left aside.

        Raises
        ------
        ProtocolError
            When the authority did not sign it.
        """
        revoked.check(self._policy.authority, self._policy.federation)
        if revoked.version >= self._revoked.version:
            self._revoked = revoked

    def keys(self) -> bytes:
        """Return this client's entry of the directory, the same whenever it is asked in a run.

        Raises
        ------
        ProtocolError
            When this client was revoked: nobody would take its keys.
        """
        self._identity.certificate.check_current(self.client, 0.0, self._revoked)
        with self._log.exclusive():
            peers = self._peers() or self._keep(Peers.alone(self.client, self.manifest))
            return Entry.of(self._identity, peers.own, self.manifest).to_bytes()

    def meet(self, clients: Sequence[str], directory: bytes) -> None:
        """Check and remember peers; one's own entry and known ones may be among them.

        Parameters
        ----------
        clients : sequence of str
            Whose entries they are, in order.
        directory : bytes

        Raises
        ------
        ProtocolError
            When one of them is not who it should be; then nobody is remembered.
        """
        entries = read_directory(clients, directory)
        with self._log.exclusive():
            peers = self._joined().copy()
            for client, entry in entries.items():
                if client != self.client and peers.entries.get(client) != entry:
                    entry.check(client, self.manifest, self._policy.authority, self._clock(), self._revoked)
                    peers.meet(client, entry)
            self._keep(peers)

    def contribute(self, round_: int, purpose: str, model: str, cohort: Sequence[str], payload: Ring) -> bytes:
        """Mask a payload for one round; at most once, and never for an earlier round than the last.

        Parameters
        ----------
        round_ : int
        purpose : str
        model : str
            Hash of the model as this client has it.
        cohort : sequence of str
            In any order.
        payload : Ring
            Integers 0 … levels.

        Raises
        ------
        ProtocolError
            When anything differs from what the manifest allows; nothing has left then.
        """
        context = RoundContext.of(self.manifest, round_, purpose, model, cohort)
        context.index(self.client)
        require_payload(context, payload)
        with self._log.exclusive():
            last = self._record()
            if last is not None and context.step <= last.step:
                raise ProtocolError(
                    "round", f"{purpose} {round_}", f"one after {last.purpose} {last.round}, the last contributed to"
                )
            peers = self._joined().copy()
            for peer in context.cohort:
                if peer != self.client:
                    peers.entry(peer).certificate.check_current(peer, self._clock(), self._revoked)
            peers.advance(context.step)
            message = protect(context, self._identity, peers, payload)
            self._keep(peers)
            self._write(Record.begin(context))
            return message

    def answer(self, stage: str, request: bytes) -> bytes:
        """Answer a request of the round that was last contributed to.

        Raises
        ------
        ProtocolError
            When it is refused.
        """
        actions = {"survivors": self.survivors, "pairs": self.pairs, "lock": self.lock, "unmask": self.unmask}
        if stage not in actions:
            raise ProtocolError("stage", stage, f"one of {sorted(actions)}")
        return actions[stage](request)

    def survivors(self, request: bytes) -> bytes:
        """Sign who is left; the first time, give up the seeds shared with those who are not."""
        with self._log.exclusive():
            record, context = self._begun()
            _refuse(record.locked, "survivors", "a locked round", "no other set")
            _refuse(record.asked >= self._policy.repeats, "survivors", record.asked + 1, "fewer requests in a round")
            bitmap, _ = self._read("survivors", request, context, 0)
            left = from_bitmap(bitmap, len(context.cohort))
            bits, me = int.from_bytes(bitmap, "little"), context.index(self.client)
            floor = max(context.terms.n_min, self._policy.n_min)
            _refuse(len(left) < floor, "survivors", len(left), f"at least {floor}")
            _refuse(not bits >> me & 1, "survivors", "without this client", "a set that it is in")
            _refuse(
                bool(record.signed and bits & ~record.signed), "survivors", "others than before", "fewer than before"
            )
            lost = [] if record.signed else self._lost(context, bits)
            self._write(record.signing(bits).revealing(sum(1 << peer for peer in lost)))
            seeds = self._reveal("survivors", context, bitmap, lost) if lost else b""
            return sign(self._identity.key, SURVIVORS, context.digest, bitmap) + seeds

    def pairs(self, request: bytes) -> bytes:
        """Shown that all survivors signed the smaller set, give up the seeds shared with those who went since."""
        with self._log.exclusive():
            record, context, bitmap = self._certified("pairs", request)
            lost = [peer for peer in self._lost(context, record.signed) if not record.revealed >> peer & 1]
            self._write(record.revealing(sum(1 << peer for peer in lost)))
            return self._reveal("pairs", context, bitmap, lost)

    def lock(self, request: bytes) -> bytes:
        """Shown that all survivors signed the set, promise to sign no other."""
        with self._log.exclusive():
            record, context, bitmap = self._certified("lock", request)
            self._write(record.locking())
            return sign(self._identity.key, LOCK, context.digest, bitmap)

    def unmask(self, request: bytes) -> bytes:
        """Shown the promises of a quorum, open the shares held for the survivors; once."""
        with self._log.exclusive():
            record, context = self._begun()
            _refuse(not record.locked, "unmask", "a set that is not locked", "a locked one")
            _refuse(record.answered, "unmask", "a second request", "one in a round")
            n, me = len(context.cohort), context.index(self.client)
            survivors = [i for i in range(n) if record.signed >> i & 1]
            wards = [i for i in context.topology.wards(me) if record.signed >> i & 1]
            # Follows from the nesting of the sets; a client that revealed a pair's seed opens no share of that peer.
            _refuse(any(record.revealed >> i & 1 for i in wards), "unmask", "both secrets of a client", "one of them")
            bitmap, proof = self._read("unmask", request, context, len(survivors), len(wards))
            lockers, quorum = from_bitmap(bitmap, n), context.quorum(len(survivors))
            _refuse(len(lockers) != quorum, "unmask", f"{len(lockers)} locks", f"{quorum}")
            _refuse(not set(lockers) <= set(survivors), "unmask", "locks of others", "locks of survivors")
            locks = pieces(proof[: SIGNATURE * quorum], SIGNATURE)
            final = to_bitmap(survivors, n)
            self._check_all(LOCK, context, final, lockers, locks)
            self._write(record.answering())
            sealed = pieces(proof[SIGNATURE * quorum :], SEALED)
            shares = b"".join(self._open(context, *pair) for pair in zip(wards, sealed, strict=True))
            return shares + sign(self._identity.key, UNMASK, context.digest, final, sha256(shares).digest())

    def forget(self) -> None:
        """Delete the run's keys: the run is over."""
        with self._log.exclusive():
            self._cached = None
            self._log.clear()

    def _certified(self, stage: str, request: bytes) -> tuple[Record, RoundContext, bytes]:
        """Check that the set which this client signed last was signed by all its members."""
        record, context = self._begun()
        _refuse(
            record.locked or not record.signed, stage, "a round at another stage", "signed, not yet locked survivors"
        )
        survivors = [i for i in range(len(context.cohort)) if record.signed >> i & 1]
        bitmap, proof = self._read(stage, request, context, len(survivors))
        _refuse(int.from_bytes(bitmap, "little") != record.signed, stage, "another set", "the one signed last")
        self._check_all(SURVIVORS, context, bitmap, survivors, pieces(proof, SIGNATURE))
        return record, context, bitmap

    def _read(
        self, stage: str, request: bytes, context: RoundContext, survivors: int, wards: int = 0
    ) -> tuple[bytes, bytes]:
        """Return bitmap and rest of a request of the right length that the server signed."""
        require_length(f"{stage} request", request, request_length(stage, context, survivors, wards))
        body, signature = request[:-SIGNATURE], request[-SIGNATURE:]
        server = bytes.fromhex(self.manifest.server)
        verify(server, signature, "the server", REQUEST, context.digest, stage, sha256(body).digest())
        size = bitmap_size(len(context.cohort))
        return body[:size], body[size:]

    def _check_all(
        self, statement: str, context: RoundContext, bitmap: bytes, signers: Sequence[int], signatures: list[bytes]
    ) -> None:
        """Check everybody's signature but this client's own, which it knows it gave."""
        peers = self._joined()
        names = [context.cohort[i] for i in signers]
        keys = [peers.entry(name).certificate.public if name != self.client else None for name in names]
        check_all(statement, context.digest, bitmap, names, keys, signatures)

    def _lost(self, context: RoundContext, survivors: int) -> list[int]:
        me = context.index(self.client)
        return [peer for peer in context.topology.neighbours(me) if not survivors >> peer & 1]

    def _reveal(self, stage: str, context: RoundContext, bitmap: bytes, lost: Sequence[int]) -> bytes:
        peers = self._joined()
        names = [context.cohort[i] for i in lost]
        seeds = b"".join(mask_seed(peers.key(name, context.step), context.digest) for name in names)
        return seeds + sign(self._identity.key, REVEAL, context.digest, stage, bitmap, sha256(seeds).digest())

    def _open(self, context: RoundContext, ward: int, sealed: bytes) -> bytes:
        name = context.cohort[ward]
        key = self._joined().key(name, context.step)
        try:
            share = unseal(key, context.digest, name, self.client, sealed)
        except ProtocolError:
            # Altered on the way, or never right: the others must not lose their shares over it.
            return UNREADABLE
        return share

    def _joined(self) -> Peers:
        peers = self._peers()
        if peers is None:
            raise ProtocolError("run", "no keys yet", "keys() before anything else")
        return peers

    def _begun(self) -> tuple[Record, RoundContext]:
        record = self._record()
        if record is None:
            raise ProtocolError("round", "none yet", "a contribution before anything else")
        return record, record.context(self.manifest)

    def _peers(self) -> Peers | None:
        data = self._log.read("peers")
        if data is None:
            return None
        if self._cached is None or self._cached[0] != data:
            self._cached = data, Peers.from_bytes(self.client, self.manifest, data)
        return self._cached[1]

    def _keep(self, peers: Peers) -> Peers:
        data = peers.to_bytes()
        self._log.write("peers", data)
        self._cached = data, peers
        return peers

    def _record(self) -> Record | None:
        data = self._log.read("round")
        return None if data is None else Record.from_bytes(data)

    def _write(self, record: Record) -> None:
        self._log.write("round", record.to_bytes())


def _refuse(wrong: bool, stage: str, found: object, expected: str) -> None:
    if wrong:
        raise ProtocolError(f"{stage} request", found, expected)
