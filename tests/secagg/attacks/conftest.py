"""A run in which everybody has met, for the server to misuse; and a small federation, for messages over Flower."""

from __future__ import annotations

import pytest

from fedpeft.scenario import Scenario, parse_scenario
from fedpeft.secagg.pairwise.rehearsal import Rehearsal
from tests.federation.conftest import TINY, config, folder, worker  # noqa: F401

from .crook import LENGTH, NAMES, Crook


@pytest.fixture
def run() -> Rehearsal:
    """Return eight clients that have met."""
    return Rehearsal.of(NAMES, LENGTH, purposes=("train", "evaluate"))


@pytest.fixture
def crook(run: Rehearsal) -> Crook:
    """Return a dishonest server to which everybody has contributed."""
    return Crook(run)


@pytest.fixture
def tiny() -> Scenario:
    """Return a scenario of five clients; one may be corrupt, one may vanish, four make a sum."""
    overrides = ["data.clients=5", "federation.cohort=5", "federation.panel=0", "federation.rounds=20"]
    return parse_scenario(TINY, overrides)
