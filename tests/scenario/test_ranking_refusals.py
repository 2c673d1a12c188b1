"""What reply ranking refuses, each with its field and its reason."""

import pytest

from fedpeft.errors import ScenarioError
from fedpeft.scenario import parse_scenario

RANKS = {"name": "ranks", "task": {"kind": "reply_ranking"}, "base": {"name": "minilm", "dtype": "float32"}}


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"task": {"pooling": "model"}}, "task.pooling: found 'model', expected 'mean'; there is no head"),
        ({"task": {"head": "private"}}, "task.head: found 'private', expected task.kind = 'classification'"),
        ({"training": {"steps": 1, "batch": 1}}, "training.batch: found 1, expected at least 2; a reply is told from"),
        ({"training": {"steps": 1, "chunk": 8}}, "training.chunk: found 8, expected none"),
        ({"training": {"steps": 1, "noise": 5.0}}, "training.noise: found 5.0, expected none; a change of the"),
        ({"training": {"steps": 1, "adversarial": {}}}, "training.adversarial: found 'fgm', expected none"),
        (
            {"personalization": {"training": {"steps": 1, "batch": 1}}},
            "personalization.training.batch: found 1, expected at least 2",
        ),
    ],
)
def test_what_ranking_cannot_do_is_refused_with_its_reason(tables, message):
    task = {**RANKS["task"], **tables.get("task", {})}
    with pytest.raises(ScenarioError) as refused:
        parse_scenario({**RANKS, **tables, "task": task})
    assert str(refused.value).startswith(message)


def test_distillation_is_refused():
    with pytest.raises(ScenarioError, match=r"training\.distillation"):
        parse_scenario({**RANKS, "training": {"steps": 1, "distillation": {}}})


def test_a_private_adapter_lies_on_top_where_two_add_up():
    assert parse_scenario(RANKS).private_method is not None
    assert parse_scenario({**RANKS, "method": {"name": "bitfit"}}).private_method is None
