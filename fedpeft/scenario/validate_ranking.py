"""What reply ranking cannot do: it has no head, and reads two texts an example."""

from __future__ import annotations

from fedpeft.errors import ScenarioError
from fedpeft.scenario.model import Scenario
from fedpeft.training import Training


def refuse_ranking(scenario: Scenario) -> None:
    """Refuse what does not fit the ranking of replies; other tasks pass.

    Raises
    ------
    ScenarioError
        With the field, what was found, what was expected and why.
    """
    if scenario.task.kind != "reply_ranking":
        return
    if scenario.task.pooling != "mean":
        raise ScenarioError(
            "task.pooling", scenario.task.pooling, "'mean'", "there is no head that could read a pooler"
        )
    for field, training in (
        ("training", scenario.training),
        ("personalization.training", scenario.personalization.training),
    ):
        _training(field, training)


def _training(field: str, training: Training) -> None:
    if training.batch < 2:
        raise ScenarioError(f"{field}.batch", training.batch, "at least 2", "a reply is told from the batch's others")
    if training.chunk is not None:
        raise ScenarioError(f"{field}.chunk", training.chunk, "none", "a batch's replies are few")
    if training.distillation is not None:
        raise ScenarioError(f"{field}.distillation", "reply_ranking", "none", "a teacher ranks with other vectors")
    changed = {"noise": training.noise, "adversarial": training.adversarial and training.adversarial.kind}
    for key, value in changed.items():
        if value:
            remedy = "a change of the embeddings is of one text, and contexts and replies are read one after another"
            raise ScenarioError(f"{field}.{key}", value, "none", remedy)
