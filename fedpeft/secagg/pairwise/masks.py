"""Masks: AES-256-CTR keystreams, expanded straight into the ring and added in place.

A key is used for one mask only, so the counter starts at zero. Keystream bytes are little-endian integers of the ring's
own width; addition wraps, and since 2^bits divides 2^width, cutting the sum to the ring's bits at the end is all that a
narrower ring needs. All masks of a stretch that fits in the cache are added before the next stretch begins.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR

from fedpeft.codecs.ring import Ring

_STRETCH = 1 << 17
_ZEROS = memoryview(bytes(_STRETCH))


def add_masks(target: Ring, keys: Iterable[tuple[bytes, int]]) -> None:
    """Add masks to a contiguous vector, in place.

    Parameters
    ----------
    target : Ring
    keys : iterable of (bytes, int)
        Keys of 32 bytes; a mask is added for a sign above zero and subtracted otherwise.
    """
    streams = [(Cipher(AES256(key), CTR(bytes(16))).encryptor(), sign > 0) for key, sign in keys]
    width = target.itemsize
    room = memoryview(bytearray(min(_STRETCH, target.nbytes)))
    scratch = np.frombuffer(room, np.uint8)
    for start in range(0, target.nbytes, _STRETCH):
        size = min(_STRETCH, target.nbytes - start)
        stretch = target[start // width : (start + size) // width]
        mask = scratch[:size].view(target.dtype.newbyteorder("<"))
        for stream, positive in streams:
            stream.update_into(_ZEROS[:size], room[:size])
            (np.add if positive else np.subtract)(stretch, mask, out=stretch)


def cut(vector: Ring, bits: int) -> None:
    """Reduce a vector modulo 2^bits, in place."""
    if bits < 8 * vector.itemsize:
        np.bitwise_and(vector, vector.dtype.type(2**bits - 1), out=vector)
