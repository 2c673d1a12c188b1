"""Files that hold no scenario, and overrides that cannot be used, are refused by name."""

import pytest

from fedpeft.errors import ScenarioError
from fedpeft.scenario import load_scenario
from tests.scenario.test_refusals import refused, scenario


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
