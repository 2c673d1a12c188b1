"""Altered messages of every kind, each to a party that waits for just that message; none may be taken, none may hurt.

After the altered ones the party gets the true message and must take it: the alteration was why they were refused.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from fedpeft.errors import ProtocolError
from fedpeft.secagg.pairwise.client import PairwiseClient
from fedpeft.secagg.pairwise.log import MemoryLog
from fedpeft.secagg.pairwise.rehearsal import Rehearsal
from fedpeft.secagg.pairwise.server import PairwiseServer
from fedpeft.secagg.trust import Certificate, Revocations, SignedManifest

NAMES = tuple(f"client{i}" for i in range(6))
LENGTH = 50
_OVERSIZE = 1 << 20


@dataclass
class Tally:
    """What became of altered messages.

    Parameters
    ----------
    tried : dict of str to int
        By kind.
    accepted, crashed : int
        Taken, and refused by anything but a ProtocolError.
    """

    tried: dict[str, int] = field(default_factory=dict)
    accepted: int = 0
    crashed: int = 0


def mutations(message: bytes, others: list[bytes], rng: random.Random) -> Iterator[bytes]:
    """Yield altered versions of a message for ever: flipped, cut, extended, spliced, replaced."""
    size = len(message)
    while True:
        data = bytearray(message)
        match rng.randrange(9):
            case 0 | 1:
                for _ in range(rng.randint(1, 8)):
                    data[rng.randrange(size)] ^= 1 << rng.randrange(8)
            case 2:
                data = data[: rng.randrange(size)]
            case 3:
                data += rng.randbytes(rng.choice([1, 2, 16, 64, 1000]))
            case 4:
                data = bytearray(rng.randbytes(size))
            case 5:
                start, length = rng.randrange(size), rng.randint(1, 64)
                data[start : start + length] = rng.choice([bytes(length), b"\xff" * length, rng.randbytes(length)])
            case 6:
                data = bytearray(rng.choice(others))
            case 7:
                other, at = rng.choice(others), rng.randrange(size)
                data[at : at + len(other)] = other[: size - at]
            case _:
                data = bytearray(rng.randrange(_OVERSIZE)) if rng.random() < 0.02 else data[1:] + data[:1]
        if data != message:
            yield bytes(data)


class Fuzzer:
    """Sends altered messages and counts.

    Parameters
    ----------
    count : int
        Of each kind.
    """

    def __init__(self, count: int) -> None:
        self.tally, self._count, self._rng = Tally(), count, random.Random(0)  # noqa: S311
        self._seen: list[bytes] = [b""]

    def try_on(self, kind: str, take: Callable[[bytes], object], message: bytes) -> None:
        """Offer altered versions, then the message itself."""
        altered = mutations(message, self._seen, self._rng)
        for _ in range(self._count):
            self.tally.tried[kind] = self.tally.tried.get(kind, 0) + 1
            try:
                take(next(altered))
            except ProtocolError:
                continue
            except Exception:
                self.tally.crashed += 1
                continue
            self.tally.accepted += 1
        take(message)
        self._seen = [*self._seen, message][-40:]


def fuzz(count: int) -> Tally:
    """Alter so many messages of every kind."""
    fuzzer, run = Fuzzer(count), Rehearsal.of(NAMES, LENGTH, purposes=("train",))
    _standing(fuzzer, run)
    earlier = _contributions(run, 1)
    fuzzer._seen += earlier.values()
    _round(fuzzer, run, _contributions(run, 2))
    return fuzzer.tally


def _standing(fuzzer: Fuzzer, run: Rehearsal) -> None:
    """Fuzz what comes before the rounds: manifest, certificates, revocations, keys, directory."""
    fuzzer.try_on("manifest", lambda data: run.policy.accept(SignedManifest.from_bytes(data)), run.signed.to_bytes())
    identity, none = run.identities[NAMES[0]], Revocations()
    pinned = (run.authority.public, "rehearsal")
    fuzzer.try_on(
        "certificate",
        lambda data: Certificate.from_bytes(data).check(*pinned, NAMES[0], 0.0, none),
        identity.certificate.to_bytes(),
    )
    listed = run.authority.revoke(1, [bytes(32)])
    fuzzer.try_on("revocations", lambda data: _listed(data, listed, pinned), listed.to_bytes())
    server = PairwiseServer(run.server.manifest, run.server._key, run.authority.public)
    fuzzer.try_on("keys", lambda data: server.join(NAMES[0], data), run.clients[NAMES[0]].keys())
    client = PairwiseClient(identity, run.policy, run.signed, MemoryLog())
    client.keys()
    fuzzer.try_on("directory", lambda data: client.meet(NAMES[1:], data), run.server.directory(NAMES[1:]))


def _listed(data: bytes, true: Revocations, pinned: tuple[bytes, str]) -> None:
    """Read and check a list; JSON that is written another way and says the same is no alteration."""
    found = Revocations.from_bytes(data)
    found.check(*pinned)
    if found == true and data != true.to_bytes():
        raise ProtocolError("revocation list", "the same", "another")


def _contributions(run: Rehearsal, round_: int) -> dict[str, bytes]:
    payload = np.arange(LENGTH).astype(np.uint16)
    return {name: client.contribute(round_, "train", "model", NAMES, payload) for name, client in run.clients.items()}


def _round(fuzzer: Fuzzer, run: Rehearsal, contributions: dict[str, bytes]) -> None:
    """Fuzz a round in which one contribution is missing and another client vanishes, so that all stages occur."""
    collected = run.server.open_round(2, "train", "model", NAMES)
    first, second, last = NAMES[0], NAMES[-2], NAMES[-1]
    for name in NAMES[:-1]:
        if name == first:
            fuzzer.try_on("contribution", lambda data: collected.add(first, data), contributions[first])
        else:
            collected.add(name, contributions[name])
    gone, fuzzed = {last}, set()
    while (asked := collected.requests()) is not None:
        stage, requests = asked
        for name, request in requests.items():
            if stage == "survivors" and name == second:
                gone.add(second)
            if name in gone:
                continue
            client, replies = run.clients[name], list[bytes]()
            if name != first or stage in fuzzed:
                collected.answer(stage, name, client.answer(stage, request))
                continue
            fuzzed.add(stage)
            fuzzer.try_on(f"{stage} request", _keeping(client, stage, replies), request)
            fuzzer.try_on(f"{stage} reply", _answering(collected.answer, stage, name), replies[-1])
    total, contributors = collected.sum()
    if not np.array_equal(total, np.arange(LENGTH, dtype=np.uint64) * len(contributors)):
        raise RuntimeError("a round that was fuzzed gave a wrong sum")


def _keeping(client: PairwiseClient, stage: str, replies: list[bytes]) -> Callable[[bytes], None]:
    return lambda data: replies.append(client.answer(stage, data))


def _answering(answer: Callable[[str, str, bytes], None], stage: str, name: str) -> Callable[[bytes], None]:
    return lambda data: answer(stage, name, data)
