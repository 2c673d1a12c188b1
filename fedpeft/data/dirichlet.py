r"""Divide a pooled data set over artificial clients whose labels are unlike.

Of each label :math:`c`, shares :math:`p_c \sim \mathrm{Dirichlet}(\alpha 1_K)` decide how many of its examples each of
the K clients gets (Yurochkin et al. 2019, arXiv:1905.12022). Every example goes to exactly one client. A small alpha
gives each client a few labels, a large one all of them alike. A draw that leaves a client with almost nothing is
repeated.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedpeft.errors import DataError
from fedpeft.seeds import stream

LEAST = 5
"""Examples that every client gets: enough for three to train, one to validate, one to test."""

_ATTEMPTS = 100


def dirichlet_partition(labels: NDArray[np.int64], clients: int, alpha: float, seed: int) -> list[NDArray[np.int64]]:
    """Divide examples over clients.

    Parameters
    ----------
    labels : ndarray of int64, shape (n,)
        The label of each example.
    clients : int
    alpha : float
        Concentration, above 0.
    seed : int

    Returns
    -------
    list of ndarray of int64
        Each client's examples as indices, in random order.

    Raises
    ------
    DataError
        When no draw gives every client enough.
    """
    for attempt in range(_ATTEMPTS):
        rng = stream(seed, "dirichlet", attempt)
        parts: list[list[NDArray[np.int64]]] = [[] for _ in range(clients)]
        for label in np.unique(labels):
            own = rng.permutation(np.flatnonzero(labels == label))
            cuts = np.rint(np.cumsum(rng.dirichlet(np.full(clients, alpha)))[:-1] * len(own)).astype(np.int64)
            for part, piece in zip(parts, np.split(own, cuts), strict=True):
                part.append(piece)
        if min(sum(map(len, part)) for part in parts) >= LEAST:
            return [rng.permutation(np.concatenate(part)) for part in parts]
    raise DataError(
        "data.federation: alpha",
        alpha,
        f"a division that leaves each of {clients} clients at least {LEAST} of {len(labels)} examples",
        "raise alpha or lower clients",
    )
