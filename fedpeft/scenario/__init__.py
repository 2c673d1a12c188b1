"""The scenario: the file people write, and the only place that refuses a combination."""

from fedpeft.scenario.load import load_scenario, parse_scenario
from fedpeft.scenario.model import Scenario

__all__ = ["Scenario", "load_scenario", "parse_scenario"]
