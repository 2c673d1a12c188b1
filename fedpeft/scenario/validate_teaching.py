"""Who can be taught by whom: a live teacher, or what one has said of public text."""

from __future__ import annotations

from fedpeft.errors import ScenarioError
from fedpeft.scenario.model import Scenario
from fedpeft.training import Training
from fedpeft.training.shared_logits import origin_of

_WRITE = ("next_word", "chat")
"""Tasks whose base has a head that the teacher's has too."""


def refuse_teaching(scenario: Scenario, field: str, training: Training) -> None:
    """Refuse teachers who know nothing of the task, and files that are none.

    Parameters
    ----------
    scenario : Scenario
    field : str
        The table of ``training``.
    training : Training

    Raises
    ------
    ScenarioError
    """
    kind, taught = scenario.task.kind, training.distillation
    if taught is None:
        return
    if kind == "classification":
        raise ScenarioError(
            f"{field}.distillation", kind, "task.kind = 'next_word'", "no base's head knows the classes"
        )
    if taught.teacher and kind == "caption":
        raise ScenarioError(
            f"{field}.distillation.teacher",
            taught.teacher,
            "''",
            "the base itself is the one teacher who sees pictures",
        )
    if not taught.logits:
        return
    if taught.teacher:
        raise ScenarioError(
            f"{field}.distillation.teacher", taught.teacher, "''", "logits say what their teacher said; take one of two"
        )
    if kind not in _WRITE:
        wanted = " or ".join(f"task.kind = {one!r}" for one in _WRITE)
        raise ScenarioError(f"{field}.distillation.logits", kind, wanted, "only they read text as the teacher did")
    temperature = origin_of(taught.logits).temperature
    if taught.temperature not in (None, temperature):
        raise ScenarioError(
            f"{field}.distillation.temperature",
            taught.temperature,
            f"{temperature}, as in {taught.logits}",
            "what was left out of the file cannot be softened otherwise",
        )
