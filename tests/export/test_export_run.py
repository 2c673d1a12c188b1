"""A run folder becomes device bundles, from Python and from the command line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from fedpeft.adapters import Adapter
from fedpeft.cli.export import export
from fedpeft.device import Bundle, Runtime
from fedpeft.device.folders import adapter_folder, base_folder, users
from fedpeft.errors import AdapterError, FedpeftError, RunError
from fedpeft.export import export_run
from fedpeft.export.folder import whole_folder
from fedpeft.export.options import ALL_SITES, spelt_out
from fedpeft.export.settings import RunSettings
from fedpeft.scenario.model import ExportTable
from fedpeft.signing.keyfile import write_key
from fedpeft.signing.signature import SigningKey, public_bytes


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


def command(*arguments: str):
    app = typer.Typer()
    app.command()(export)
    return CliRunner().invoke(app, list(arguments))


def record(run, **facts):
    content = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**content, **facts}))


def test_the_scenarios_export_table_decides_and_the_manifest_says_what_trained_it(exported, run):
    table = {"precision": "int4", "sites": ["prompt"], "adapters": "float16"}
    scenario = {"base": {"name": "keyboard", "dtype": "bfloat16"}, "export": table}
    (run / "scenario.json").write_text(json.dumps(scenario))
    record(run, scenario="ab" * 32, privacy={"epsilon": 2.5})
    manifests = export_run(run, exported.base)
    assert manifests["base"].precision == "int4"
    assert "soft_prompt" in manifests["base"].tensors
    ada = Bundle.open(adapter_folder(run, "ada"), "adapter").manifest
    assert (ada.precision, ada.method, ada.scenario, ada.privacy) == ("float16", "lora", "ab" * 32, {"epsilon": 2.5})


def test_adapters_in_half_precision_take_half_the_bytes_and_answer_alike(exported, run):
    whole = export_run(run, exported.base)
    half = export_run(run, exported.base, settings=RunSettings(adapters="float16"))
    for name in ("adapter.onnx_adapter", "adapter_model.safetensors"):
        assert half["ada"].files[name].bytes < 0.6 * whole["ada"].files[name].bytes
    assert half["ada"].tensors == whole["ada"].tensors
    runtime = Runtime(base_folder(run))
    ids = list(range(5, 40))
    near = runtime.logits(ids, runtime.load(adapter_folder(run, "ada")))
    exact = exported.runtime.logits(ids, exported.loaded["both"])
    assert 0 < np.abs(near - exact).max() < 0.1
    assert np.abs(near - exported.runtime.logits(ids)).max() > 1
    again = Adapter.load(adapter_folder(run, "ada"), exported.base.fingerprint)
    assert np.abs(again.vector - exported.adapters["both"].vector).max() < 1e-3


def test_numbers_beyond_half_precision_are_refused(exported, run):
    huge = replace(exported.adapters["rank 8"], vector=exported.adapters["rank 8"].vector * np.float32(1e7))
    huge.save(run / "clients" / "ada" / "personal")
    with pytest.raises(AdapterError, match=r"at most 65504\.0 in float16"):
        export_run(run, exported.base, settings=RunSettings(adapters="float16"))


@pytest.mark.parametrize("variant", ["required", "rows"])
def test_another_variant_lies_beside_the_base(exported, run, variant):
    export_run(run, exported.base)
    result = command("--runs", str(run.parent), "--variant", variant, "--precision", "dynamic-int8", "--json")
    assert result.exit_code == 0, result.output
    made = Bundle.open(run / "device" / f"base-{variant}", "base").manifest
    assert (made.variant, made.precision) == (variant, "dynamic-int8")
    usual = Bundle.open(base_folder(run), "base").manifest
    assert (usual.variant, usual.precision, usual.tensors) == ("optional", "float32", made.tensors)


def test_a_folder_that_peft_saved_becomes_a_run_that_the_runtime_opens(exported, tmp_path):
    exported.adapters["rank 8"].save(tmp_path / "peft" / "eve")
    out = tmp_path / "mine"
    arguments = ["--adapter", str(tmp_path / "peft" / "eve"), "--base", "keyboard", "--out", str(out)]
    result = command(*arguments, "--json")
    assert result.exit_code == 0, result.output
    runtime = Runtime(base_folder(out))
    ids = list(range(5, 40))
    ours = runtime.logits(ids, runtime.load(adapter_folder(out, "eve")))
    assert np.array_equal(ours, exported.runtime.logits(ids, exported.loaded["rank 8"]))
    assert isinstance(command(*arguments).exception, FedpeftError)


@pytest.mark.parametrize("given", [".", "..", "../eve", "../eve/"])
def test_an_adapter_is_named_by_its_folder_however_it_is_written(exported, tmp_path, monkeypatch, given):
    eve = tmp_path / "peft" / "eve"
    exported.adapters["rank 8"].save(eve)
    (eve / "below").mkdir()
    monkeypatch.chdir(eve / "below" if given == ".." else eve)
    result = command("--adapter", given, "--base", "keyboard", "--out", str(tmp_path / "mine"))
    assert result.exit_code == 0, result.output
    assert users(tmp_path / "mine") == ["eve"]


@pytest.mark.parametrize("name", ["-eve", ".eve", "e ve", "base", "e=1"])
def test_an_adapters_folder_whose_name_no_person_can_have_is_refused(exported, tmp_path, name):
    exported.adapters["rank 8"].save(tmp_path / name)
    error = command("--adapter", str(tmp_path / name), "--base", "keyboard", "--out", str(tmp_path / "out")).exception
    assert isinstance(error, FedpeftError)
    assert "--adapter: found" in str(error) and "rename the folder" in str(error)
    assert not (tmp_path / "out").exists()


def test_the_empty_folder_one_is_in_can_be_written_to(exported, tmp_path, monkeypatch):
    exported.adapters["rank 8"].save(tmp_path / "eve")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with whole_folder(Path(), 0o700) as draft:
        (draft / "manifest.json").write_text("{}")
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["manifest.json"]
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    result = command("--adapter", str(tmp_path / "eve"), "--base", "keyboard", "--out", ".")
    assert result.exit_code == 0, result.exception
    assert users(tmp_path / "there") == ["eve"]
    assert json.loads((tmp_path / "there" / "run.json").read_text())["name"] == "there"


def test_one_persons_model_is_exported_merged(exported, run):
    result = command("--runs", str(run.parent), "--merged", "--user", "ada", "--json")
    assert result.exit_code == 0, result.output
    ids = list(range(5, 40))
    ours = Runtime(run / "device" / "merged" / "ada").logits(ids)
    assert np.abs(ours - exported.runtime.logits(ids, exported.loaded["both"])).max() <= 1e-4


def test_bundles_are_signed_with_a_key_of_ones_own(exported, run, tmp_path):
    key = SigningKey.generate()
    write_key(tmp_path / "keys" / "mine.pem", key)
    result = command("--runs", str(run.parent), "--key", str(tmp_path / "keys" / "mine.pem"), "--json")
    assert result.exit_code == 0, result.output
    signer = public_bytes(key).hex()
    assert Bundle.open(adapter_folder(run, "ada"), "adapter", {signer}).manifest.signer == signer
    assert not (run / "trust").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--precision", "int5"], "did you mean 'int8'"),
        (["--variant", "row"], "did you mean 'rows'"),
        (["--sites", "lora,prompts"], "did you mean 'prompt'"),
        (["--adapters", "float61"], "did you mean 'float16'"),
        (["--user", "ada"], "--merged --user NAME"),
        (["--merged", "--user", "adda"], "did you mean 'ada'"),
        (["--adapter", "x", "--base", "keyboard"], "--out DIR"),
        (["--key", "nowhere.pem"], "a key file that can be read"),
    ],
)
def test_wrong_options_are_refused_with_one_line(run, arguments, complaint):
    result = command("--runs", str(run.parent), *arguments)
    assert isinstance(result.exception, FedpeftError)
    assert complaint in str(result.exception)
    assert not (run / "device").exists()


def test_the_scenario_names_the_sites_that_there_are():
    (kinds,) = get_args(ExportTable.model_fields["sites"].annotation)
    assert spelt_out(get_args(kinds)) == frozenset(ALL_SITES)
    assert {kind for kind in get_args(kinds) if kind in ALL_SITES} >= {"lora", "scale", "bias", "prompt"}
