"""From a payload to a contribution."""

from __future__ import annotations

from hashlib import sha256

import numpy as np

from fedpeft.codecs.ring import Ring
from fedpeft.errors import ProtocolError
from fedpeft.secagg.pairwise.context import RoundContext
from fedpeft.secagg.pairwise.masks import add_masks, cut
from fedpeft.secagg.pairwise.packing import pack, ring_dtype
from fedpeft.secagg.pairwise.peers import Peers
from fedpeft.secagg.pairwise.ratchet import mask_seed, self_seed
from fedpeft.secagg.pairwise.seal import seal
from fedpeft.secagg.pairwise.shamir import WIDTH, draw, share
from fedpeft.secagg.pairwise.statements import CONTRIBUTE
from fedpeft.secagg.trust.identity import Identity
from fedpeft.signing.encoding import digest
from fedpeft.signing.signature import sign


def require_payload(context: RoundContext, payload: Ring) -> None:
    """Refuse integers that are not a client's share of the round's ring.

    Raises
    ------
    ProtocolError
        For another type or length, or a level beyond what a client may use.
    """
    dtype, shape, levels = ring_dtype(context.terms.bits), (context.length,), context.terms.levels
    if payload.dtype != dtype or payload.shape != shape:
        raise ProtocolError("payload", f"{payload.dtype}{payload.shape}", f"{dtype}{shape}")
    if int(payload.max()) > levels:
        raise ProtocolError("payload", int(payload.max()), f"≤ {levels}")


def protect(context: RoundContext, identity: Identity, peers: Peers, payload: Ring) -> bytes:
    """Mask, share, seal and sign: y | commitment to b | sealed shares | signature.

    The commitment is a hash of b, 128 bits from the operating system; with it the server knows when a share is wrong.
    """
    me, ctx, cohort = context.index(identity.client), context.digest, context.cohort
    secret = draw(1)[0]
    own = secret.to_bytes(WIDTH, "big")
    keys = [(self_seed(own, ctx), 1)]
    for peer in context.topology.neighbours(me):
        keys.append((mask_seed(peers.key(cohort[peer], context.step), ctx), 1 if me < peer else -1))
    masked = np.array(payload, order="C")
    add_masks(masked, keys)
    cut(masked, context.terms.bits)
    vector = pack(masked, context.terms.bits)
    shares = share(secret, context.parameters.threshold, context.parameters.holders)
    tail = commitment(ctx, identity.client, own)
    for holder, value in zip(context.topology.holders(me), shares, strict=True):
        name = cohort[holder]
        key = peers.key(name, context.step)
        tail += seal(key, ctx, identity.client, name, value.to_bytes(WIDTH, "big"))
    return vector + tail + sign(identity.key, CONTRIBUTE, ctx, identity.client, *_hashes(vector, tail))


def signed_fields(context: RoundContext, client: str, vector: bytes, tail: bytes) -> tuple[bytes, str, bytes, bytes]:
    """Return what a contribution's signature covers besides its label."""
    return (context.digest, client, *_hashes(vector, tail))


def commitment(context: bytes, client: str, secret: bytes) -> bytes:
    """Return the hash that binds a client to its b."""
    return digest("self", context, client, secret)


def _hashes(vector: bytes, tail: bytes) -> tuple[bytes, bytes]:
    return sha256(vector).digest(), sha256(tail).digest()
