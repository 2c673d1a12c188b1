"""What the ring costs in accuracy: the mean of n clients' changes in B-bit integers against the mean in float64."""

from __future__ import annotations

import numpy as np

from fedpeft.bench.result import Result
from fedpeft.codecs import RingCodec

CLIENTS, SIZE = 16, 100_000
BITS = (8, 10, 12, 16, 20, 24, 32)


def run(full: bool) -> Result:
    """Measure the normalised mean square error for Gaussian changes clipped at four deviations.

    Parameters
    ----------
    full : bool
        With 100 clients too.

    Returns
    -------
    Result
        ``error_B_bits_n_clients``: mean square error of the mean over the mean square of the mean.
    """
    figures: dict[str, object] = {}
    for clients in (CLIENTS, 100) if full else (CLIENTS,):
        for bits in BITS:
            if (2**bits - 1) // clients >= 3:
                figures[f"error_{bits}_bits_{clients}_clients"] = error(bits, clients, seed=0)
    figures["wire_bytes_per_coordinate"] = {str(b): RingCodec(b, 1.0, CLIENTS).dtype.itemsize for b in BITS}
    return Result(figures, {"name": "float64 mean", "error": 0.0, "wire_bytes_per_coordinate": 8})


def error(bits: int, clients: int, seed: int) -> float:
    """Return the normalised mean square error of one sum."""
    rng = np.random.default_rng(seed)
    # A direction all share plus their own noise, as federated changes are.
    common = rng.normal(0.0, 1.0, SIZE)
    vectors = [(common + rng.normal(0.0, 1.0, SIZE)).astype(np.float32) for _ in range(clients)]
    codec = RingCodec(bits, 4.0 * np.sqrt(2.0), clients)
    total = sum(codec.encode(v, rng).astype(np.uint64) for v in vectors)
    exact = np.mean([np.clip(v, -codec.range, codec.range) for v in vectors], axis=0, dtype=np.float64)
    mean = codec.decode(np.asarray(total, np.uint64), clients) / clients
    return float(np.mean((mean - exact) ** 2) / np.mean(exact**2))
