"""The one place that refuses a combination, by what the parts declare about themselves."""

from __future__ import annotations

from collections.abc import Mapping

from fedpeft.adapters.partition import PARTITIONS
from fedpeft.aggregation import RULES
from fedpeft.codecs import RingCodec
from fedpeft.errors import ScenarioError, nearest
from fedpeft.methods.method import Algebra
from fedpeft.scenario.model import Scenario
from fedpeft.secagg import CHANNELS


def validate(scenario: Scenario) -> None:
    """Refuse a scenario whose parts do not fit together.

    Raises
    ------
    ScenarioError
        With the field, what was found, what was expected and why.
    """
    method = scenario.shared_method
    federation = scenario.federation
    _known("federation.partition", federation.partition, PARTITIONS)
    _known("channel.name", scenario.channel.name, CHANNELS)
    _known("aggregation.rule", scenario.aggregation.rule, RULES)
    if federation.partition != "all" and method.algebra is not Algebra.MULTILINEAR:
        raise ScenarioError(
            "federation.partition",
            federation.partition,
            "all",
            f"{method.name} has no two factors to divide",
        )
    if federation.minimum > federation.cohort:
        raise ScenarioError("federation.minimum", federation.minimum, f"at most cohort = {federation.cohort}")
    clients = scenario.data.clients
    if clients is not None and federation.cohort > clients:
        raise ScenarioError("federation.cohort", federation.cohort, f"at most data.clients = {clients}")
    if scenario.channel.range == "auto" and scenario.training.steps is None:
        if scenario.training.max_steps is None:
            raise ScenarioError(
                "channel.range", "auto", "a number", "with training.epochs, auto needs training.max_steps"
            )
    elif scenario.channel.range != "auto" and scenario.channel.range <= 0:
        raise ScenarioError("channel.range", scenario.channel.range, "a positive number")
    ring_codec(scenario)
    panel_codec(scenario)
    if any(not 0.0 <= share <= 1.0 for share in scenario.personalization.gate):
        raise ScenarioError("personalization.gate", scenario.personalization.gate, "shares in [0, 1]")
    if 0.0 not in scenario.personalization.gate:
        raise ScenarioError(
            "personalization.gate",
            scenario.personalization.gate,
            "0 among the shares",
            "without it a person could not keep the global adapter when theirs is worse",
        )
    if len(set(scenario.seeds)) != len(scenario.seeds):
        raise ScenarioError("seeds", scenario.seeds, "distinct numbers")


def ring_codec(scenario: Scenario) -> RingCodec:
    """Return the ring of a scenario's channel.

    With ``range = "auto"`` the range is learning rate × steps: about what AdamW can move a coordinate in a round,
    because each of its steps is at most about the learning rate (Kingma & Ba 2015, arXiv:1412.6980, section 2.1).
    """
    wanted = scenario.channel.range
    if wanted == "auto":
        steps = scenario.training.steps or scenario.training.max_steps or 1
        wanted = scenario.training.learning_rate * steps
    return RingCodec(scenario.channel.bits, float(wanted), scenario.federation.cohort)


def panel_codec(scenario: Scenario) -> RingCodec:
    """Return the ring in which the panel's validation totals are summed; they are lanes, so its range is unused."""
    return RingCodec(scenario.channel.bits, 1.0, max(scenario.federation.panel, 2))


def _known(field: str, name: str, table: Mapping[str, object]) -> None:
    if name not in table:
        raise ScenarioError(field, name, "a known name", nearest(name, table))
