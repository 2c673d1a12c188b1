"""A run folder becomes device bundles, from Python and from the command line."""

import json

import pytest
import typer
from typer.testing import CliRunner

from fedpeft.cli.export import export
from fedpeft.device import Bundle, Runtime
from fedpeft.device.folders import adapter_folder, base_folder, users
from fedpeft.errors import RunError
from fedpeft.export import export_run


@pytest.fixture
def run(exported, tmp_path):
    folder = tmp_path / "demo"
    exported.adapters["rank 8"].save(folder / "adapters" / "global")
    for user in ("ada", "bo"):
        exported.adapters["both"].save(folder / "clients" / user / "personal")
    (folder / "scenario.json").write_text(json.dumps({"base": {"name": "keyboard", "dtype": "bfloat16"}}))
    (folder / "run.json").write_text(json.dumps({"started": "2025-11-22T10:00:00+00:00"}))
    return folder


def test_a_run_exports_its_base_once_and_every_adapter(exported, run):
    manifests = export_run(run, exported.base)
    assert list(manifests) == ["base", "global", "ada", "bo"]
    assert users(run) == ["ada", "bo", "global"]
    assert Bundle.open(adapter_folder(run, "ada"), "adapter").manifest.name == "ada"
    runtime = Runtime(base_folder(run))
    assert runtime.load(adapter_folder(run, "global")).owner == "global"


def test_the_export_command_loads_the_base_that_the_scenario_names(run):
    app = typer.Typer()
    app.command()(export)
    result = CliRunner().invoke(app, ["--run", "latest", "--runs", str(run.parent), "--json"])
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout.splitlines()[-1])
    assert answer["bytes"].keys() == {"base", "global", "ada", "bo"}
    assert users(run) == ["ada", "bo", "global"]


def test_a_client_with_the_name_of_the_base_is_refused(exported, run):
    exported.adapters["both"].save(run / "clients" / "base" / "personal")
    with pytest.raises(RunError, match="found 'base'"):
        export_run(run, exported.base)


def test_a_run_without_a_scenario_is_refused(run):
    (run / "scenario.json").unlink()
    with pytest.raises(RunError, match=r"scenario\.json"):
        export_run(run)
