"""The one place that refuses a combination, by what the parts declare about themselves."""

from __future__ import annotations

from collections.abc import Mapping

from fedpeft.adapters.partition import PARTITIONS
from fedpeft.aggregation import RULES
from fedpeft.codecs import RingCodec
from fedpeft.data.enrolled import ENROLLED
from fedpeft.errors import ProtocolError, ScenarioError, nearest
from fedpeft.methods.method import CAUSAL, CLASSIFICATION, Algebra
from fedpeft.scenario.model import Scenario
from fedpeft.scenario.validate_devices import refuse_devices, refuse_thrift
from fedpeft.scenario.validate_memory import refuse_memory
from fedpeft.scenario.validate_ranking import refuse_ranking
from fedpeft.scenario.validate_teaching import refuse_teaching
from fedpeft.secagg import CHANNELS
from fedpeft.secagg.pairwise.parameters import parameters
from fedpeft.training import Training

_FEWEST = 3
_MOST_VANISHING = 0.5
_ENCODERS = ("classification", "reply_ranking")
"""Kinds of tasks whose base is an encoder: they take the methods for classification, with or without a head."""
_MESSAGES = ("next_word", "chat")
"""Kinds of tasks that learn from messages alone."""


def validate(scenario: Scenario) -> None:
    """Refuse a scenario whose parts do not fit together.

    Raises
    ------
    ScenarioError
        With the field, what was found, what was expected and why.
    """
    method = scenario.shared_method
    federation, own = scenario.federation, scenario.personalization.training
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
    _task(scenario)
    _packing(scenario)
    if scenario.secure:
        _secure(scenario)
    for field, training in (("training", scenario.training), ("personalization.training", own)):
        refuse_thrift(scenario, field, training, scenario.base.dtype)
        _rates(scenario, field, training)
        _robustness(scenario, field, training)
        refuse_teaching(scenario, field, training)
    refuse_devices(scenario)
    refuse_memory(scenario)
    refuse_ranking(scenario)
    _enrolled(scenario)
    if federation.minimum > federation.cohort:
        raise ScenarioError("federation.minimum", federation.minimum, f"at most cohort = {federation.cohort}")
    clients = scenario.data.clients
    if clients is not None and federation.cohort > clients:
        raise ScenarioError("federation.cohort", federation.cohort, f"at most data.clients = {clients}")
    if clients is not None and scenario.asked > clients:
        most = clients - federation.cohort
        raise ScenarioError("federation.oversample", federation.oversample, f"at most data.clients - cohort = {most}")
    _range(scenario)
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


def _range(scenario: Scenario) -> None:
    """Refuse a range that is none, or cannot be known beforehand."""
    wanted, training = scenario.channel.range, scenario.training
    if isinstance(wanted, float):
        if wanted <= 0:
            raise ScenarioError("channel.range", wanted, "a positive number")
        return
    if training.steps is None and training.max_steps is None:
        raise ScenarioError("channel.range", wanted, "a number", f"with training.epochs, {wanted} needs max_steps")
    if wanted == "adaptive" and not scenario.channel.rotate:
        raise ScenarioError(
            "channel.range", wanted, "channel.rotate = true", "only a rotated update's largest change follows its norm"
        )


def _task(scenario: Scenario) -> None:
    """Refuse a method or precision that does not fit the task or the base."""
    method, kind = scenario.shared_method, scenario.task.kind
    wanted = CLASSIFICATION if kind in _ENCODERS else CAUSAL
    if wanted not in method.tasks:
        known = ", ".join(sorted(method.tasks))
        raise ScenarioError("method.name", method.name, f"a method for {kind}", f"it is for {known} models")
    if scenario.task.head == "private" and kind != "classification":
        raise ScenarioError("task.head", "private", "task.kind = 'classification'", f"{kind} trains no head")
    if method.precision != "full" and not scenario.devices and scenario.precision == "full":
        raise ScenarioError("base.precision", "full", f"one that {method.name} trains on", "leave base.precision out")


def _enrolled(scenario: Scenario) -> None:
    """Refuse what only a list of clients known beforehand, or text with labels, could give."""
    if not scenario.enrolled:
        return
    if scenario.task.kind not in _MESSAGES:
        raise ScenarioError(
            "data.federation",
            ENROLLED,
            f"a data set for {scenario.task.kind}",
            "devices keep messages: use next_word or chat",
        )
    if scenario.data.clients is not None:
        raise ScenarioError("data.clients", scenario.data.clients, "no number", "whoever is enrolled may take part")
    named = [device.name for device in scenario.devices if device.clients]
    if named:
        raise ScenarioError(f"devices[{named[0]}].clients", "names", "a share", "each device says of which class it is")


def require_simulable(scenario: Scenario) -> None:
    """Refuse to simulate what takes devices that are somewhere.

    Raises
    ------
    ScenarioError
    """
    if scenario.enrolled:
        remedy = "run it with `fedpeft server up`, or --set data.federation=keyboard"
        raise ScenarioError("data.federation", ENROLLED, "people whose text is here", remedy)


def _packing(scenario: Scenario) -> None:
    """Refuse several examples in one window where they would not be apart, or do not exist."""
    method, kind, asked = scenario.shared_method, scenario.task.kind, scenario.data.packing
    if asked and kind != "chat":
        raise ScenarioError("data.packing", True, "task.kind = 'chat'", f"{kind} has one text in a window")
    if asked and method.precedes:
        raise ScenarioError("data.packing", True, "false", f"{method.name} puts vectors before one text, not several")


def _secure(scenario: Scenario) -> None:
    """Refuse cohorts too small to hide anybody in, and those that could not lose the clients they are said to lose."""
    federation, channel = scenario.federation, scenario.channel
    panel = min(federation.panel, scenario.data.clients or federation.panel)
    asked = "federation.cohort + oversample" if federation.oversample else "federation.cohort"
    if scenario.vanishing >= _MOST_VANISHING:
        remedy = "who is not waited for has vanished: enlarge the cohort, or lower oversample or channel.dropout"
        raise ScenarioError(asked, round(scenario.vanishing, 3), f"less than {_MOST_VANISHING} who vanish", remedy)
    for field, size in ((asked, scenario.asked), ("federation.panel", panel)):
        if field == "federation.panel" and not size:
            continue
        if size < _FEWEST:
            raise ScenarioError(field, size, f"at least {_FEWEST}", "a sum of two tells each what the other sent")
        try:
            parameters(size, channel.corrupt, scenario.vanishing)
        except ProtocolError as error:
            raise ScenarioError(f"{field} with channel.corrupt and channel.dropout", size, str(error)) from error


def _rates(scenario: Scenario, field: str, training: Training) -> None:
    """Refuse rates for what a method does not have."""
    method = scenario.shared_method
    if training.lora_plus > 1 and not method.second:
        raise ScenarioError(
            f"{field}.lora_plus", training.lora_plus, "1", f"{method.name} has no factor B that starts at zero"
        )


def _robustness(scenario: Scenario, field: str, training: Training) -> None:
    """Refuse ways to robustness that would change nothing."""
    kind, changed = scenario.task.kind, training.augmentation
    if changed is not None and not any(changed.model_dump().values()):
        raise ScenarioError(f"{field}.augmentation", "all zero", "one of drop, swap and replace above 0")
    if changed is not None and kind == "caption":
        raise ScenarioError(f"{field}.augmentation", kind, "another task", "all words of a caption are targets")
    if training.adversarial is not None and scenario.packing:
        remedy = "the worst change is of one example, and a packed window holds several"
        raise ScenarioError(f"{field}.adversarial", training.adversarial.kind, "data.packing = false", remedy)


def ring_codec(scenario: Scenario) -> RingCodec:
    """Return the ring of a scenario's channel.

    With ``range = "auto"`` the range is learning rate × steps: about what AdamW can move a coordinate in a round,
    because each of its steps is at most about the learning rate (Kingma & Ba 2015, arXiv:1412.6980, section 2.1).
    Where a classifier's head is shared, the rate is the head's. Rotated, a vector whose every coordinate moves that far
    is Gaussian with that deviation, so the range is four of them.
    """
    wanted, training = scenario.channel.range, scenario.training
    if isinstance(wanted, str):
        steps = training.steps or training.max_steps or 1
        heads = scenario.task.kind == "classification" and scenario.task.head == "shared"
        wanted = training.learning_rate * steps * (max(training.head_factor, 1.0) if heads else 1.0)
        wanted *= 4.0 if scenario.channel.rotate else 1.0
    return RingCodec(scenario.channel.bits, float(wanted), scenario.asked)


def panel_codec(scenario: Scenario, clients: int | None = None) -> RingCodec:
    """Return the ring in which the panel's validation totals are summed; they are lanes, so its range is unused.

    Parameters
    ----------
    scenario : Scenario
    clients : int, optional
        How many there are, where that is known: a panel is no larger.
    """
    panel = scenario.federation.panel
    return RingCodec(scenario.channel.bits, 1.0, max(min(panel, clients or panel), _FEWEST))


def _known(field: str, name: str, table: Mapping[str, object]) -> None:
    if name not in table:
        raise ScenarioError(field, name, "a known name", nearest(name, table))
