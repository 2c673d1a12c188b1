"""Pair keys: agreed once per run, moved on with every round, never back.

::

    k⁰ = HKDF(X25519(mine, theirs), enc("pair", manifest digest, both ids in order))        RFC 7748, RFC 5869
    k^{r+1} = HKDF(k^r, "ratchet"),   seed = HKDF(k^r, enc("mask", ctx)),   seal = HKDF(k^r, enc("seal", ctx, from, to))

A seed that is revealed for a peer who vanished tells nothing of the pair's other rounds, because it is one step aside
of the chain. Earlier chain keys are forgotten; as long as newcomers may still be met, the run key that began the chains
is kept, so what a device's thief can reconstruct is bounded by the run, not by the round.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from fedpeft.errors import ProtocolError
from fedpeft.signing.encoding import derive, extract

ExchangeKey = X25519PrivateKey


@dataclass(frozen=True)
class Chain:
    """A pair's key at one step.

    Parameters
    ----------
    step : int
    key : bytes
    """

    step: int
    key: bytes

    @classmethod
    def begin(cls, own: ExchangeKey, peer: bytes, manifest: bytes, ids: tuple[str, str]) -> Chain:
        """Agree on a pair's first key."""
        return cls(0, extract(agree(own, peer), "pair", manifest, *sorted(ids)))

    def at(self, step: int) -> Chain:
        """Move on to a step.

        Raises
        ------
        ProtocolError
            When it is past: its key is forgotten.
        """
        if step < self.step:
            raise ProtocolError("ratchet step", step, f"{self.step} or later")
        key = self.key
        for _ in range(step - self.step):
            key = derive(key, "ratchet")
        return Chain(step, key)


def agree(own: ExchangeKey, peer: bytes) -> bytes:
    """Return what only the holders of either secret key can compute.

    Raises
    ------
    ProtocolError
        When the peer's public key is one of the few that give a known result, with whatever secret key.
    """
    try:
        return own.exchange(X25519PublicKey.from_public_bytes(peer))
    except ValueError as error:
        raise ProtocolError("exchange key", peer.hex()[:16], "a point of full order") from error


def mask_seed(key: bytes, context: bytes) -> bytes:
    """Return a pair's mask seed of a round."""
    return derive(key, "mask", context)


def self_seed(secret: bytes, context: bytes) -> bytes:
    """Return the key of a client's own mask from the secret that it shares."""
    return derive(secret, "self", context)
