"""Every mistake in a scenario is answered with its field, what was found, and what to do."""

from typing import ClassVar

import pytest

from fedpeft.errors import ScenarioError
from fedpeft.methods import METHODS
from fedpeft.methods.lora import Lora
from fedpeft.scenario import Scenario, parse_scenario
from fedpeft.scenario.validate import panel_codec, ring_codec, validate

LORA = {"name": "lora"}


def refused(tables, *overrides: str) -> str:
    with pytest.raises(ScenarioError) as error:
        parse_scenario(tables, overrides)
    return str(error.value)


def scenario(**tables) -> dict[str, object]:
    return {"name": "trial", **tables}


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        # what validate.py refuses
        (
            {"federation": {"partition": "fa"}},
            "federation.partition: found 'fa', expected a known name; did you mean 'ffa'?",
        ),
        (
            {"federation": {"partition": "xyz"}},
            "federation.partition: found 'xyz', expected a known name; known: all, alternate, fedsa, ffa",
        ),
        ({"channel": {"name": "plane"}}, "channel.name: found 'plane', expected a known name; did you mean 'plain'?"),
        (
            {"aggregation": {"rule": "adm"}},
            "aggregation.rule: found 'adm', expected a known name; did you mean 'adam'?",
        ),
        (
            {"federation": {"minimum": 17}},
            "federation.minimum: found 17, expected at most cohort = 16",
        ),
        (
            {"data": {"clients": 8}},
            "federation.cohort: found 16, expected at most data.clients = 8",
        ),
        (
            {"training": {"epochs": 1}},
            "channel.range: found 'auto', expected a number; with training.epochs, auto needs max_steps",
        ),
        (
            {"channel": {"range": "adaptive"}},
            "channel.range: found 'adaptive', expected channel.rotate = true; only a rotated update's largest change",
        ),
        (
            {"federation": {"cohort": 2}},
            "federation.cohort: found 2, expected at least 3; a sum of two tells each what the other sent",
        ),
        (
            {"federation": {"panel": 2}},
            "federation.panel: found 2, expected at least 3; a sum of two tells each what the other sent",
        ),
        ({"channel": {"dropout": 0.5}}, "channel.dropout: found 0.5, expected input should be less than 0.5"),
        ({"channel": {"range": 0.0}}, "channel.range: found 0.0, expected a positive number"),
        ({"channel": {"range": -1.5}}, "channel.range: found -1.5, expected a positive number"),
        ({"channel": {"range": float("inf")}}, "channel.range: found inf, expected "),
        ({"channel": {"range": float("nan")}}, "channel.range: found nan, expected "),
        (
            {"channel": {"bits": 8}, "federation": {"cohort": 100}},
            "channel.bits: found 8, expected at least 9 bits for 100 clients; raise channel.bits or lower federation.cohort",
        ),
        (
            {"channel": {"bits": 8}, "federation": {"panel": 100}},
            "channel.bits: found 8, expected at least 9 bits for 100 clients; raise channel.bits or lower ",
        ),
        (
            {"personalization": {"gate": [0.0, 1.5]}},
            "personalization.gate: found [0.0, 1.5], expected shares in [0, 1]",
        ),
        (
            {"personalization": {"gate": [0.0, -0.1]}},
            "personalization.gate: found [0.0, -0.1], expected shares in [0, 1]",
        ),
        ({"personalization": {"gate": [0.0, float("nan")]}}, "personalization.gate: found "),
        (
            {"personalization": {"gate": [0.5, 1.0]}},
            "personalization.gate: found [0.5, 1.0], expected 0 among the shares; "
            "without it a person could not keep the global adapter when theirs is worse",
        ),
        ({"seeds": [1, 2, 1]}, "seeds: found [1, 2, 1], expected distinct numbers"),
        ({"seeds": [0, -1]}, "seeds"),
        # what the types refuse
        ({"name": "two words"}, "name: found 'two words', expected string should match pattern"),
        ({"name": "../up"}, "name: found '../up', expected string should match pattern"),
        ({"seed": -1}, "seed: found -1, expected input should be greater than or equal to 0"),
        ({"seed": 2**200}, f"seed: found {2**200}, expected "),
        ({"data": {"clients": 1}}, "data.clients: found 1, expected input should be greater than or equal to 2"),
        ({"data": {"window": 7}}, "data.window: found 7, expected input should be greater than or equal to 8"),
        ({"data": {"window": 4097}}, "data.window: found 4097, expected input should be less than or equal to 4096"),
        (
            {"data": {"max_windows": 0}},
            "data.max_windows: found 0, expected input should be greater than or equal to 1",
        ),
        ({"data": 3}, "data: found 3, expected input should be a valid dictionary"),
        (
            {"base": {"dtype": "int8"}},
            "base.dtype: found 'int8', expected input should be 'bfloat16', 'float32' or 'float16'",
        ),
        ({"training": {"steps": 0}}, "training.steps: found 0, expected input should be greater than or equal to 1"),
        ({"training": {"steps": "many"}}, "training.steps: found 'many', expected input should be a valid integer"),
        ({"training": {}}, "training: found {}, expected exactly one of steps and epochs"),
        (
            {"training": {"steps": 1, "epochs": 1}},
            "training: found {'steps': 1, 'epochs': 1}, expected exactly one of steps and epochs",
        ),
        (
            {"training": {"steps": 1, "schedule": "step"}},
            "training.schedule: found 'step', expected input should be 'constant', 'linear' or 'cosine'",
        ),
        ({"training": {"steps": 1, "warmup": 1.0}}, "training.warmup: found 1.0, expected input should be less than 1"),
        (
            {"training": {"steps": 1, "learning_rate": float("inf")}},
            "training.learning_rate: found inf, expected ",
        ),
        (
            {"federation": {"cohort": 1}},
            "federation.cohort: found 1, expected input should be greater than or equal to 2",
        ),
        (
            {"federation": {"weighting": "size"}},
            "federation.weighting: found 'size', expected input should be 'tokens' or 'uniform'",
        ),
        ({"channel": {"bits": 33}}, "channel.bits: found 33, expected input should be less than or equal to 32"),
        ({"channel": {"range": "wide"}}, "channel.range: found 'wide', expected "),
        ({"aggregation": {"beta1": 1.0}}, "aggregation.beta1: found 1.0, expected input should be less than 1"),
        ({"aggregation": {"tau": 0}}, "aggregation.tau: found 0, expected input should be greater than 0"),
        ({"aggregation": {"tau": float("inf")}}, "aggregation.tau: found inf, expected "),
        (
            {"personalization": {"gate": []}},
            "personalization.gate: found [], expected list should have at least 1 item",
        ),
        (
            {"personalization": {"training": {"steps": 0}}},
            "personalization.training.steps: found 0, expected input should be greater than or equal to 1",
        ),
        ({"samples": {"tokens": 0}}, "samples.tokens: found 0, expected input should be greater than or equal to 1"),
        (
            {"training": {"steps": 1, "augmentation": {"drop": 1.0}}},
            "training.augmentation.drop: found 1.0, expected input should be less than 1",
        ),
        (
            {"training": {"steps": 1, "adversarial": {"kind": "fgsm"}}},
            "training.adversarial.kind: found 'fgsm', expected input should be 'fgm' or 'pgd'",
        ),
        (
            {"training": {"steps": 1, "distillation": {"weight": 0}}},
            "training.distillation.weight: found 0, expected input should be greater than 0",
        ),
        ({"training": {"steps": 1, "augmentation": 0.1}}, "training.augmentation: found 0.1, expected input should be"),
        (
            {"training": {"steps": 1, "optimizer": "adam8bit"}},
            "training.optimizer: found 'adam8bit', expected input should be 'adamw' or 'adamw8bit'",
        ),
        (
            {"task": {"kind": "classify"}},
            "task.kind: found 'classify', expected input should be 'next_word', 'chat', 'classification', 'reply_ranking' or 'caption'",
        ),
        (
            {"base": {"precision": "int4"}},
            "base.precision: found 'int4', expected input should be 'full', 'nf4', 'int8' or 'auto'",
        ),
        # typos at every depth
        ({"metod": LORA}, "metod: found 'metod', expected a known field; did you mean 'method'?"),
        ({"data": {"windo": 8}}, "data.windo: found 'windo', expected a known field; did you mean 'window'?"),
        (
            {"personalization": {"training": {"stepz": 4, "steps": 4}}},
            "personalization.training.stepz: found 'stepz', expected a known field; did you mean 'steps'?",
        ),
        (
            {"training": {"steps": 1, "augmentation": {"drp": 0.1}}},
            "training.augmentation.drp: found 'drp', expected a known field; did you mean 'drop'?",
        ),
        (
            {"personalization": {"training": {"steps": 4, "adversarial": {"radios": 1}}}},
            "personalization.training.adversarial.radios: found 'radios', expected a known field; "
            "did you mean 'radius'?",
        ),
        (
            {"training": {"steps": 1, "distillation": {"zzz": 1}}},
            "training.distillation.zzz: found 'zzz', expected a known field; known: logits, teacher, temperature, weight",
        ),
        ({"aggregation": {"zzz": 1}}, "aggregation.zzz: found 'zzz', expected a known field; known: beta1, beta2,"),
        # and the method's own
        ({"method": {"name": "lorra"}}, "method.name: found 'lorra', expected a known method; did you mean 'lora'?"),
        ({"method": {**LORA, "rnk": 1}}, "method.rnk: found 'rnk', expected a known field; did you mean 'rank'?"),
        ({"method": 3}, "method: found 3, expected input should be a valid dictionary"),
    ],
)
def test_a_mistake_is_named_with_its_field_value_and_remedy(tables, message):
    assert refused(scenario(**tables)).startswith(message)


LABELS = {"task": {"kind": "classification"}}
PREFIX = {"method": {"name": "prefix_tuning"}}


@pytest.mark.parametrize("table", ["training", "personalization.training"])
@pytest.mark.parametrize(
    ("tables", "options", "message"),
    [
        (
            PREFIX,
            {"checkpointing": True},
            "checkpointing: found True, expected false; prefix_tuning keeps keys and values that cannot be computed again",
        ),
        (
            LABELS,
            {"chunk": 64},
            "chunk: found 64, expected task.kind = 'next_word'; few classes need no chunks",
        ),
        (
            {},
            {"chunk": 64, "distillation": {}},
            "chunk: found 64, expected no distillation; a live teacher needs all logits at once",
        ),
        (
            {},
            {"autocast": True},
            "autocast: found True, expected base.dtype = 'float32'; the base computes in it already",
        ),
        (
            {"method": {"name": "ia3"}},
            {"lora_plus": 16},
            "lora_plus: found 16.0, expected 1; ia3 has no factor B that starts at zero",
        ),
        ({}, {"batch": 4, "micro_batch": 8}, "micro_batch: found 8, expected at most batch = 4"),
        (
            {},
            {"augmentation": {"drop": 0.0}},
            "augmentation: found 'all zero', expected one of drop, swap and replace above 0",
        ),
        (
            {"task": {"kind": "caption"}},
            {"augmentation": {"drop": 0.1}},
            "augmentation: found 'caption', expected another task; all words of a caption are targets",
        ),
        (
            LABELS,
            {"distillation": {}},
            "distillation: found 'classification', expected task.kind = 'next_word'; no base's head knows the classes",
        ),
        (
            {"task": {"kind": "caption"}},
            {"distillation": {"teacher": "keyboard"}},
            "distillation.teacher: found 'keyboard', expected ''; the base itself is the one teacher who sees pictures",
        ),
    ],
)
def test_a_switch_is_refused_where_it_cannot_work(table, tables, options, message):
    training = {"steps": 1, **options}
    inner = {"training": training} if table == "training" else {"personalization": {"training": training}}
    assert refused(scenario(**tables, **inner)) == f"{table}.{message}"


@pytest.mark.parametrize(
    ("tables", "options"),
    [
        ({}, {"checkpointing": True, "chunk": 64, "optimizer": "adamw8bit"}),
        ({"base": {"dtype": "float32"}}, {"autocast": True}),
        ({}, {"batch": 8, "micro_batch": 2, "lora_plus": 16.0, "noise": 5.0, "patience": 2}),
        (LABELS, {"augmentation": {"swap": 0.1}, "adversarial": {"kind": "pgd"}, "checkpointing": True}),
        ({}, {"distillation": {"teacher": "keyboard"}, "augmentation": {"replace": 0.1}}),
        ({"task": {"kind": "caption"}}, {"chunk": 64}),
        ({"task": {"kind": "caption"}}, {"distillation": {}}),
    ],
)
def test_where_a_switch_works_it_is_taken(tables, options):
    parsed = parse_scenario(scenario(**tables, training={"steps": 1, **options}))
    assert parsed.training.model_dump(exclude_unset=True) == {"steps": 1, **options}


@pytest.mark.parametrize("kind", ["next_word", "caption"])
def test_only_a_classifier_has_a_head_to_keep(kind):
    message = refused(scenario(task={"kind": kind, "head": "private"}))
    assert message == f"task.head: found 'private', expected task.kind = 'classification'; {kind} trains no head"
    parse_scenario(scenario(task={"kind": "classification", "head": "private"}))


@pytest.mark.parametrize("partition", ["ffa", "alternate", "fedsa"])
def test_a_partition_needs_a_method_with_two_factors(partition):
    message = refused(scenario(method={"name": "houlsby"}, federation={"partition": partition}))
    assert message == (f"federation.partition: found '{partition}', expected all; houlsby has no two factors to divide")
    parse_scenario(scenario(method={"name": "houlsby"}))
    parse_scenario(scenario(method=LORA, federation={"partition": partition}))


def test_a_method_for_a_quantized_base_refuses_a_full_one():
    tables = scenario(method={"name": "qlora"})
    assert refused(tables, "base.precision=full") == (
        "base.precision: found 'full', expected one that qlora trains on; leave base.precision out"
    )
    assert parse_scenario(tables).precision == "nf4"
    assert parse_scenario(tables, ["base.precision=int8"]).precision == "int8"


def test_a_method_for_other_models_is_refused(monkeypatch):
    class Writer(Lora):
        name: ClassVar[str] = "writer"
        tasks: ClassVar[frozenset[str]] = frozenset({"causal"})

    monkeypatch.setitem(METHODS, "writer", Writer)
    message = refused(scenario(method={"name": "writer"}, **LABELS))
    assert message == "method.name: found 'writer', expected a method for classification; it is for causal models"
    parse_scenario(scenario(method={"name": "writer"}))


def test_a_scenario_needs_a_name():
    assert refused({}) == "name: found {}, expected field required"


def test_the_automatic_range_is_the_rate_times_the_steps():
    """What Adam moves a coordinate at most, about: its rate, each step."""
    steps = parse_scenario(scenario(training={"steps": 8, "learning_rate": 0.002}, channel={"bits": 20}))
    assert (ring_codec(steps).bits, ring_codec(steps).clients) == (20, 16)
    assert ring_codec(steps).range == pytest.approx(0.016)
    epochs = parse_scenario(scenario(training={"epochs": 1, "max_steps": 5, "learning_rate": 0.01}))
    assert ring_codec(epochs).range == pytest.approx(0.05)
    assert ring_codec(parse_scenario(scenario(channel={"range": 0.25}))).range == 0.25


@pytest.mark.parametrize(
    ("head", "factor", "range_"), [("shared", 10.0, 0.2), ("private", 10.0, 0.02), ("shared", 0.5, 0.02)]
)
def test_the_automatic_range_has_room_for_a_shared_head_that_learns_faster(head, factor, range_):
    tables = scenario(task={"kind": "classification", "head": head}, training={"steps": 10, "learning_rate": 0.002})
    assert ring_codec(parse_scenario(tables, [f"training.head_factor={factor}"])).range == pytest.approx(range_)


@pytest.mark.parametrize(("panel", "clients"), [(40, 40), (4, 4), (0, 3)])
def test_the_panels_totals_have_a_ring_with_room_for_the_panel(panel, clients):
    tables = scenario(federation={"panel": panel, "cohort": 16}, channel={"bits": 12})
    ring = panel_codec(parse_scenario(tables))
    assert (ring.bits, ring.clients) == (12, clients)


def test_validation_is_where_a_scenario_built_in_python_is_refused_too():
    built = Scenario(name="trial", seeds=[3, 3])
    with pytest.raises(ScenarioError, match="distinct numbers"):
        validate(built)
