"""A run in which everybody has met, for the server to misuse; and a small federation, for messages over Flower."""

from __future__ import annotations

import pytest

from fedpeft.secagg.pairwise.rehearsal import Rehearsal
from tests.federation.conftest import config, folder, tiny, worker  # noqa: F401

from .crook import LENGTH, NAMES, Crook


@pytest.fixture
def run() -> Rehearsal:
    """Return eight clients that have met."""
    return Rehearsal.of(NAMES, LENGTH, purposes=("train", "evaluate"))


@pytest.fixture
def crook(run: Rehearsal) -> Crook:
    """Return a dishonest server to which everybody has contributed."""
    return Crook(run)
