"""The small federation of the tests beside, as a real server may run it."""

from __future__ import annotations

import pytest

from fedpeft.scenario import Scenario, parse_scenario

from ..conftest import TINY


@pytest.fixture
def tiny() -> Scenario:
    """Return a scenario in which nobody personalizes: a real server sums no fewer than three people's scores."""
    return parse_scenario({**TINY, "personalization": {"people": 0}})
