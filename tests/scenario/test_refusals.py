"""Every mistake in a scenario is answered with its field, what was found, and what to do."""

from typing import ClassVar

import pytest

from fedpeft.errors import ScenarioError
from fedpeft.methods import METHODS
from fedpeft.methods.lora import Lora
from fedpeft.methods.method import Algebra
from fedpeft.scenario import Scenario, load_scenario, parse_scenario
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
            "channel.range: found 'auto', expected a number; with training.epochs, auto needs training.max_steps",
        ),
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
        # typos at every depth
        ({"metod": LORA}, "metod: found 'metod', expected a known field; did you mean 'method'?"),
        ({"data": {"windo": 8}}, "data.windo: found 'windo', expected a known field; did you mean 'window'?"),
        (
            {"personalization": {"training": {"stepz": 4, "steps": 4}}},
            "personalization.training.stepz: found 'stepz', expected a known field; did you mean 'steps'?",
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


def test_a_partition_needs_a_method_with_two_factors(monkeypatch):
    """No such method is registered yet, so one is registered for this test."""

    class Vector(Lora):
        name: ClassVar[str] = "vector"
        algebra: ClassVar[Algebra] = Algebra.LINEAR

    monkeypatch.setitem(METHODS, "vector", Vector)
    message = refused(scenario(method={"name": "vector"}, federation={"partition": "ffa"}))
    assert message == "federation.partition: found 'ffa', expected all; vector has no two factors to divide"
    parse_scenario(scenario(method={"name": "vector"}))


def test_a_scenario_needs_a_name():
    assert refused({}) == "name: found {}, expected field required"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rounds", "--set: found 'rounds', expected table.key=value; for example --set federation.rounds=3"),
        ("=3", "--set: found '=3', expected table.key=value; for example --set federation.rounds=3"),
        ("a..b=3", "--set: found 'a..b=3', expected table.key=value; for example --set federation.rounds=3"),
        ("name.x=3", "--set: found 'name.x=3', expected name to be a table"),
        ("federation.round=3", "federation.round: found 'round', expected a known field; did you mean 'rounds'?"),
        ("federation.rounds=three", "federation.rounds: found 'three', expected input should be a valid integer"),
    ],
)
def test_an_override_that_cannot_be_used_is_refused(override, message):
    assert refused(scenario(), override).startswith(message)


@pytest.mark.parametrize("table", ["training", "personalization.training"])
def test_two_lengths_of_one_training_are_refused_when_both_are_overridden(table):
    for lengths in (["steps=5", "epochs=1"], ["epochs=1", "steps=5"]):
        message = refused(scenario(), *(f"{table}.{length}" for length in lengths))
        assert message.startswith(f"{table}: found ")
        assert "expected exactly one of steps and epochs" in message


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("trial.toml", b"name = ", "scenario .*trial.toml: found 'Invalid value.*expected valid TOML"),
        ("trial.toml", b'name = "a"\nname = "b"', "found 'Cannot overwrite a value.*expected valid TOML"),
        ("trial.toml", b"name = '\xff'", "scenario: found '.*trial.toml', expected a readable TOML file"),
        ("trial.json", b"{", "scenario .*trial.json: found"),
        ("trial.json", b"[]", "scenario"),
        ("trial.json", b"3", "scenario"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_its_path(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ScenarioError, match=message):
        load_scenario(tmp_path / name)


def test_a_missing_file_lists_its_neighbours_or_the_simulations(tmp_path, repository, monkeypatch):
    (tmp_path / "mine.toml").write_text('name = "mine"')
    with pytest.raises(ScenarioError, match=r"found '.*/mien\.toml', expected a readable TOML file; .*mine\.toml"):
        load_scenario(tmp_path / "mien.toml")
    monkeypatch.chdir(repository)
    with pytest.raises(ScenarioError, match=r"scenarios there: .*simulations/keyboard\.toml.* simulations/smoke\.toml"):
        load_scenario(tmp_path / "nowhere" / "mine.toml")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(ScenarioError, match="name an existing file"):
        load_scenario("mine.toml")


def test_a_folder_is_no_scenario(tmp_path):
    with pytest.raises(ScenarioError, match="a readable TOML file"):
        load_scenario(tmp_path)


def test_the_automatic_range_is_the_rate_times_the_steps():
    """What Adam moves a coordinate at most, about: its rate, each step."""
    steps = parse_scenario(scenario(training={"steps": 8, "learning_rate": 0.002}, channel={"bits": 20}))
    assert (ring_codec(steps).bits, ring_codec(steps).clients) == (20, 16)
    assert ring_codec(steps).range == pytest.approx(0.016)
    epochs = parse_scenario(scenario(training={"epochs": 1, "max_steps": 5, "learning_rate": 0.01}))
    assert ring_codec(epochs).range == pytest.approx(0.05)
    assert ring_codec(parse_scenario(scenario(channel={"range": 0.25}))).range == 0.25


@pytest.mark.parametrize(("panel", "clients"), [(40, 40), (3, 3), (0, 2)])
def test_the_panels_totals_have_a_ring_with_room_for_the_panel(panel, clients):
    tables = scenario(federation={"panel": panel, "cohort": 16}, channel={"bits": 12})
    ring = panel_codec(parse_scenario(tables))
    assert (ring.bits, ring.clients) == (12, clients)


def test_validation_is_where_a_scenario_built_in_python_is_refused_too():
    built = Scenario(name="trial", seeds=[3, 3])
    with pytest.raises(ScenarioError, match="distinct numbers"):
        validate(built)
