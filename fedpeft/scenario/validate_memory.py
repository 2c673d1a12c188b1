"""Which budgets of memory can be kept: only where all that takes memory is counted."""

from __future__ import annotations

from fedpeft.errors import FedpeftError, ScenarioError
from fedpeft.scenario.model import Scenario
from fedpeft.training.amounts import amount


def refuse_memory(scenario: Scenario) -> None:
    """Refuse budgets that are no amounts, that nobody could keep, and ``auto`` without one.

    Raises
    ------
    ScenarioError
        With the field, what was found, what was expected and why.
    """
    if scenario.personalization.training.memory is not None:
        raise ScenarioError(
            "personalization.training.memory",
            scenario.personalization.training.memory,
            "none",
            "set training.memory: one budget holds for all that a client trains",
        )
    for device in scenario.classes:
        where = f"devices[{device.name}]" if device.name else "training"
        if device.precision == "auto" and device.memory is None:
            field = f"{where}.precision" if device.name else "base.precision"
            raise ScenarioError(field, "auto", "a budget to choose by", "set training.memory, as in '1GB'")
        if device.memory is None:
            continue
        if device.memory != "auto":
            try:
                amount(device.memory, f"{where}.memory")
            except FedpeftError as error:
                raise ScenarioError(
                    f"{where}.memory", device.memory, "auto or an amount of bytes", "as in 500MB or 2GB"
                ) from error
        _countable(scenario, f"{where}.memory", device.memory)


def _countable(scenario: Scenario, field: str, memory: str) -> None:
    if scenario.task.kind == "caption":
        raise ScenarioError(field, memory, "a task of texts", "what pictures take is not counted yet")
    if scenario.base.device != "cpu":
        raise ScenarioError(field, memory, "base.device = 'cpu'", "what a GPU takes is not counted yet")
    for name, training in (
        ("training", scenario.training),
        ("personalization.training", scenario.personalization.training),
    ):
        if training.autocast:
            raise ScenarioError(
                f"{name}.autocast", True, "false with a budget", "use base.dtype = 'bfloat16', which is counted"
            )
        taught = training.distillation
        if taught is not None:
            raise ScenarioError(
                f"{name}.distillation", "a teacher", "none with a budget", "its memory is not counted yet"
            )
