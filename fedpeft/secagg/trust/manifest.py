"""The manifest: what a run may ask of its clients, signed by the operator before it begins.

A server cannot change a line of it. Clients compare it with their own policy once and then hold every round to it.
It travels as canonical JSON with a signature; its digest goes into every context, key and signature of the run.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from math import ceil, isfinite
from typing import Any

from fedpeft.errors import ProtocolError
from fedpeft.signing.encoding import digest
from fedpeft.signing.signature import SIGNATURE, SigningKey, sign, verify

LIMIT = 65_536
"""Bytes that a manifest may have."""


@dataclass(frozen=True)
class Terms:
    """What is summed for one purpose.

    Parameters
    ----------
    purpose : str
        Such as ``train`` or ``evaluate``.
    lengths : tuple of int
        Ring coordinates of a payload; in round r the one at r modulo their number.
    bits : int
        Size of the ring.
    range : float
        Largest magnitude that is not clipped.
    n_min, n_max : int
        How few and how many clients' payloads a sum may hold.
    """

    purpose: str
    lengths: tuple[int, ...]
    bits: int
    range: float
    n_min: int
    n_max: int

    def length(self, round_: int) -> int:
        """Return the coordinates of a payload in a round."""
        return self.lengths[round_ % len(self.lengths)]

    @property
    def levels(self) -> int:
        """The largest integer that a client may send, so that no sum wraps."""
        return int((2**self.bits - 1) // self.n_max)


@dataclass(frozen=True)
class Manifest:
    """Everything that a run's clients agree to.

    Parameters
    ----------
    federation, run : str
    server : str
        Public key under which the server signs its requests, in hex.
    terms : tuple of Terms
        In the order in which a round serves them.
    rounds : int
        The last round's number.
    corrupt, dropout : float
        Shares of a cohort that may collude with the server, and that may vanish in a round.
    weight_cap : float
        Largest weight of a client.
    scales, schema, scenario, privacy : str
        Digests of the codec's scales, the adapter's schema, the scenario and the privacy parameters; may be empty.
    revocations : int
        The number of the revocation list that is in force.
    """

    federation: str
    run: str
    server: str
    terms: tuple[Terms, ...]
    rounds: int
    corrupt: float
    dropout: float
    weight_cap: float = 1.0
    scales: str = ""
    schema: str = ""
    scenario: str = ""
    privacy: str = ""
    revocations: int = 0

    def __post_init__(self) -> None:
        _require("rounds", self.rounds, 0 < self.rounds < 2**31, "between 1 and 2^31")
        _require("revocations", self.revocations, 0 <= self.revocations < 2**31, "between 0 and 2^31")
        for name in ("corrupt", "dropout"):
            _require(name, getattr(self, name), 0.0 <= getattr(self, name) < 0.5, "a share in [0, 0.5)")
        names = [terms.purpose for terms in self.terms]
        _require("purposes", names, 0 < len(names) == len(set(names)), "at least one, each once")
        for terms in self.terms:
            self._check(terms)

    def _check(self, terms: Terms) -> None:
        where = f"{terms.purpose}."
        _require(where + "lengths", terms.lengths, bool(terms.lengths) and min(terms.lengths) > 0, "positive numbers")
        _require(where + "bits", terms.bits, 4 <= terms.bits <= 32, "4 to 32")
        _require(where + "range", terms.range, isfinite(terms.range) and terms.range > 0, "a positive number")
        _require(
            where + "n_max", terms.n_max, 3 <= terms.n_max < 2**16 and terms.levels > 0, "3 to 65535, below 2^bits"
        )
        least = majority(terms.n_max, self.corrupt)
        _require(where + "n_min", terms.n_min, least <= terms.n_min <= terms.n_max, f"{least} to {terms.n_max}")

    @cached_property
    def digest(self) -> bytes:
        """What contexts, keys and signatures bind."""
        return digest("manifest", self.to_bytes())

    def of(self, purpose: str) -> Terms:
        """Return the terms of a purpose."""
        for terms in self.terms:
            if terms.purpose == purpose:
                return terms
        raise ProtocolError("purpose", purpose, f"one of {[terms.purpose for terms in self.terms]}")

    def step(self, round_: int, purpose: str) -> int:
        """Return the number of a round and purpose on the run's one clock."""
        _require("round", round_, 0 <= round_ <= self.rounds, f"0 to {self.rounds}")
        return round_ * len(self.terms) + self.terms.index(self.of(purpose))

    def to_bytes(self) -> bytes:
        """Return the canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Read a manifest; anything but the canonical bytes of a valid one is refused.

        Raises
        ------
        ProtocolError
        """
        try:
            fields: dict[str, Any] = json.loads(data)
            terms = tuple(Terms(**{**one, "lengths": tuple(one["lengths"])}) for one in fields.pop("terms"))
            manifest = cls(terms=terms, **fields)
            same = manifest.to_bytes() == data
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ProtocolError("manifest", str(error)[:80], "the canonical JSON of a manifest") from error
        if not same:
            raise ProtocolError("manifest", "other bytes", "the canonical JSON of a manifest")
        return manifest


@dataclass(frozen=True)
class SignedManifest:
    """A manifest and the operator's signature.

    Parameters
    ----------
    body : bytes
    signature : bytes
    """

    body: bytes
    signature: bytes

    @classmethod
    def of(cls, manifest: Manifest, operator: SigningKey) -> SignedManifest:
        """Sign a manifest."""
        body = manifest.to_bytes()
        return cls(body, sign(operator, "manifest", body))

    def open(self, operator: bytes) -> Manifest:
        """Verify, then read.

        Raises
        ------
        ProtocolError
            When the operator did not sign exactly this.
        """
        verify(operator, self.signature, "the operator", "manifest", self.body)
        return Manifest.from_bytes(self.body)

    def to_bytes(self) -> bytes:
        """Return signature and body."""
        return self.signature + self.body

    @classmethod
    def from_bytes(cls, data: bytes) -> SignedManifest:
        """Split signature and body; whose it is, :meth:`open` says."""
        if not SIGNATURE < len(data) <= SIGNATURE + LIMIT:
            raise ProtocolError("manifest length", len(data), f"at most {SIGNATURE + LIMIT} bytes")
        return cls(data[SIGNATURE:], data[:SIGNATURE])


def corrupt_count(clients: int, corrupt: float) -> int:
    """Return how many of some clients may collude with the server: the share, rounded up."""
    return ceil(clients * corrupt - 1e-9)


def majority(clients: int, corrupt: float) -> int:
    """Return the least size at which two sets out of some clients always share an honest one."""
    return (clients + corrupt_count(clients, corrupt)) // 2 + 1


def _require(field: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise ProtocolError(f"manifest {field}", value, expected)
