"""Secure aggregation's arithmetic against Flower's own SecAgg+ functions, in turn, in CPU milliseconds."""

from __future__ import annotations

import base64
import os
import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fedpeft.federation import flower_secagg as flower
from fedpeft.secagg.pairwise.masks import add_masks
from fedpeft.secagg.pairwise.opening import open_sum, recover
from fedpeft.secagg.pairwise.packing import pack, ring_dtype
from fedpeft.secagg.pairwise.ratchet import mask_seed, self_seed
from fedpeft.secagg.pairwise.shamir import WIDTH, draw, share
from fedpeft.signing.encoding import digest

NEIGHBOURS = 16
MASK_SIZE = 1_000_000
CLIENTS, DROPPED, UNMASK_SIZE = 100, 10, 100_000
THRESHOLD = 2 * NEIGHBOURS // 3 + 1

_MODULUS = 2**32
_CONTEXT = bytes(32)


def faster(ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Run both in turn and return the least CPU milliseconds of each."""
    best = [float("inf"), float("inf")]
    for _ in range(repeats):
        for i, action in enumerate((ours, theirs)):
            start = time.process_time()
            action()
            best[i] = min(best[i], 1e3 * (time.process_time() - start))
    return best[0], best[1]


def masking(bits: int, repeats: int) -> tuple[float, float]:
    """Time a client's masks: one of its own and one with each of k neighbours, from keys to bytes.

    Parameters
    ----------
    bits : int
        Our ring; Flower's is 32 bits.
    repeats : int

    Returns
    -------
    tuple of float
        Milliseconds, ours and Flower's.
    """
    payload = np.random.default_rng(0).integers(0, 2**8, MASK_SIZE).astype(ring_dtype(bits))
    chains = [os.urandom(32) for _ in range(NEIGHBOURS)]
    secret = os.urandom(WIDTH)
    quantized = [np.array([5], np.int64), payload.astype(np.int64)]
    seeds = [base64.urlsafe_b64encode(os.urandom(32)) for _ in range(NEIGHBOURS + 1)]
    shapes: list[tuple[int, ...]] = [(1,), (MASK_SIZE,)]

    def ours() -> bytes:
        masked = payload.copy()
        pairs = [(mask_seed(chain, _CONTEXT), 1 if i % 2 else -1) for i, chain in enumerate(chains)]
        add_masks(masked, [(self_seed(secret, _CONTEXT), 1), *pairs])
        return pack(masked, bits)

    def theirs() -> Any:
        masked = quantized
        for seed in seeds:
            masked = flower.parameters_addition(masked, flower.pseudo_rand_gen(seed, _MODULUS, shapes))
        return flower.parameters_mod(masked, _MODULUS)

    return faster(ours, theirs, repeats)


def unmasking(repeats: int) -> tuple[float, float]:
    """Time a server's unmasking: 90 self-masks from their shares, 10 clients' pair masks with 90 % of 16 neighbours.

    Returns
    -------
    tuple of float
        Milliseconds, ours and Flower's.
    """
    here, pairs = CLIENTS - DROPPED, DROPPED * round(NEIGHBOURS * (CLIENTS - DROPPED) / CLIENTS)
    total = np.random.default_rng(0).integers(0, _MODULUS, UNMASK_SIZE, dtype=np.int64)
    return faster(_ours(here, pairs, total), _theirs(here, pairs // DROPPED, total), repeats)


def _ours(here: int, pairs: int, total: np.ndarray) -> Callable[[], Any]:
    order, secrets = random.Random(0), draw(here)  # noqa: S311
    parts = [share(secret, THRESHOLD, NEIGHBOURS + 1) for secret in secrets]
    # Whoever answered first: another choice of holders for each client.
    held = [{x + 1: part[x] for x in order.sample(range(NEIGHBOURS + 1), THRESHOLD)} for part in parts]
    commitments = [digest("self", secret.to_bytes(WIDTH, "big")) for secret in secrets]
    seeds, vector = [os.urandom(32) for _ in range(pairs)], pack(total.astype(np.uint16), 16)

    def right(i: int) -> Callable[[bytes], bool]:
        return lambda secret: digest("self", secret) == commitments[i]

    def unmask() -> Any:
        keys = [recover(shares, THRESHOLD, right(i)) for i, shares in enumerate(held)]
        masks = [(self_seed(key, _CONTEXT), 1) for key in keys if key is not None] + [(seed, 1) for seed in seeds]
        return open_sum([vector], UNMASK_SIZE, 16, masks)

    return unmask


def _theirs(here: int, neighbours: int, total: np.ndarray) -> Callable[[], Any]:
    private, public = flower.generate_key_pairs()
    key, peer = flower.private_key_to_bytes(private), flower.public_key_to_bytes(public)
    seed_shares = flower.create_shares(os.urandom(32), THRESHOLD, NEIGHBOURS + 1)[:THRESHOLD]
    key_shares = flower.create_shares(key, THRESHOLD, NEIGHBOURS + 1)[:THRESHOLD]
    shapes: list[tuple[int, ...]] = [(1,), (UNMASK_SIZE,)]
    summed = [np.array([1], np.int64), total]

    def unmask() -> Any:
        vector = summed
        for _ in range(here):
            seed = flower.combine_shares(seed_shares)
            vector = flower.parameters_subtraction(vector, flower.pseudo_rand_gen(seed, _MODULUS, shapes))
        for _ in range(DROPPED):
            own = flower.bytes_to_private_key(flower.combine_shares(key_shares))
            for _ in range(neighbours):
                shared = flower.generate_shared_key(own, flower.bytes_to_public_key(peer))
                vector = flower.parameters_addition(vector, flower.pseudo_rand_gen(shared, _MODULUS, shapes))
        return flower.parameters_mod(vector, _MODULUS)

    return unmask
