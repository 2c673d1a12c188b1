"""What a client demands of any run, whoever signed its manifest."""

from __future__ import annotations

from dataclasses import dataclass

from fedpeft.errors import ProtocolError
from fedpeft.secagg.trust.manifest import Manifest, SignedManifest


@dataclass(frozen=True)
class Policy:
    """A client's pinned keys and floors; they come with the app, never from the server.

    Parameters
    ----------
    authority, operator : bytes
        The pinned public keys.
    federation : str
    n_min : int
        No sum may hold fewer clients.
    corrupt : float
        The least share of colluding clients that a run must be safe against.
    bits : tuple of int
        Least and largest ring.
    rounds : int
        The most rounds of a run.
    repeats : int
        How often a round's survivors may be asked for.
    schema, scenario, privacy : str, optional
        Digests that the manifest must name; None accepts any.
    """

    authority: bytes
    operator: bytes
    federation: str
    n_min: int = 3
    corrupt: float = 0.0
    bits: tuple[int, int] = (4, 32)
    rounds: int = 10_000
    repeats: int = 8
    schema: str | None = None
    scenario: str | None = None
    privacy: str | None = None

    def accept(self, signed: SignedManifest) -> Manifest:
        """Verify a manifest and hold it against the floors.

        Raises
        ------
        ProtocolError
            Naming the first part that this client does not agree to.
        """
        manifest = signed.open(self.operator)
        _expect("federation", manifest.federation, self.federation == manifest.federation, self.federation)
        _expect("rounds", manifest.rounds, manifest.rounds <= self.rounds, f"at most {self.rounds}")
        _expect("corrupt", manifest.corrupt, manifest.corrupt >= self.corrupt, f"at least {self.corrupt}")
        for name in ("schema", "scenario", "privacy"):
            mine, theirs = getattr(self, name), getattr(manifest, name)
            _expect(name, theirs[:12], mine is None or mine == theirs, str(mine)[:12])
        for terms in manifest.terms:
            _expect(f"{terms.purpose}.n_min", terms.n_min, terms.n_min >= self.n_min, f"at least {self.n_min}")
            low, high = self.bits
            _expect(f"{terms.purpose}.bits", terms.bits, low <= terms.bits <= high, f"{low} to {high}")
        return manifest


def _expect(field: str, found: object, holds: bool, wanted: str) -> None:
    if not holds:
        raise ProtocolError(f"manifest {field}", found, f"{wanted}, by this client's policy")
