"""One seed, many independent streams: each use of chance derives its own from the run's seed and a label."""

from __future__ import annotations

from hashlib import sha256

import numpy as np


def derive(seed: int, *labels: str | int) -> int:
    """Return a 63-bit seed that depends on the run's seed and every label, on any machine alike.

    Labels are length-prefixed, so ``("a", "bc")`` and ``("ab", "c")`` differ.
    """
    digest = sha256(b"fedpeft-seed/v1" + seed.to_bytes(16, "little", signed=True))
    for label in labels:
        encoded = str(label).encode()
        digest.update(len(encoded).to_bytes(4, "little") + encoded)
    return int.from_bytes(digest.digest()[:8], "little") >> 1


def stream(seed: int, *labels: str | int) -> np.random.Generator:
    """Return a generator of its own for one use of chance."""
    return np.random.default_rng(derive(seed, *labels))
