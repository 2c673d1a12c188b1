"""A budget that nobody could keep, or that says nothing, is refused with one clear line."""

import pytest

from fedpeft.errors import ScenarioError
from fedpeft.scenario import Scenario
from fedpeft.scenario.validate import validate

STEPS = {"steps": 2}
REFUSED = [
    ({"base": {"precision": "auto"}}, "base.precision: found 'auto', expected a budget to choose by"),
    ({"training": STEPS | {"memory": "lots"}}, "training.memory: found 'lots', expected auto or an amount of bytes"),
    (
        {"personalization": {"training": STEPS | {"memory": "1GB"}}},
        "personalization.training.memory: found '1GB', expected none",
    ),
    (
        {"base": {"dtype": "float32"}, "training": STEPS | {"memory": "1GB", "autocast": True}},
        "training.autocast: found True, expected false with a budget",
    ),
    ({"training": STEPS | {"memory": "1GB", "distillation": {}}}, "training.distillation: .* expected none with a"),
    ({"training": STEPS | {"memory": "1GB"}, "base": {"device": "cuda"}}, "expected base.device = 'cpu'"),
    (
        {
            "task": {"kind": "caption"},
            "data": {"federation": "shapes"},
            "base": {"name": "tiny-llava"},
            "training": STEPS | {"memory": "1GB"},
        },
        "expected a task of texts",
    ),
    (
        {"devices": [{"name": "phone", "share": 1.0, "precision": "auto"}]},
        r"devices\[phone\].precision: found 'auto', expected a budget",
    ),
]


@pytest.mark.parametrize(("tables", "message"), REFUSED)
def test_it_is_refused(tables, message):
    with pytest.raises(ScenarioError, match=message):
        validate(Scenario(name="budget", **tables))


@pytest.mark.parametrize("memory", ["500MB", "1.5 GiB", "auto"])
def test_amounts_and_auto_are_accepted(memory):
    scenario = Scenario(name="budget", base={"precision": "auto"}, training={"steps": 2, "memory": memory})
    validate(scenario)
    assert [kind.memory for kind in scenario.classes] == [memory]
