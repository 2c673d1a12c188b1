"""The folder for onnxruntime-genai: what is in it, what is refused, and that genai writes what our own runtime writes."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime as ort
import onnxruntime_genai as og
import pytest
import typer
from typer.testing import CliRunner

from fedpeft.cli.export import export
from fedpeft.device import Runtime
from fedpeft.device.manifest import MANIFEST
from fedpeft.errors import BundleError
from fedpeft.export import ExportOptions, export_base
from fedpeft.export.genai import CONFIG, export_genai
from fedpeft.signing.signature import SigningKey

KEY = SigningKey.from_private_bytes(bytes(32))
ADAPTERS = ["rank 8", "rank 2", "both"]
PROMPT = [1, 3, 269, 385, 501]


@pytest.fixture(scope="module")
def folder(exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundles = {name: exported.folder / name for name in ADAPTERS}
    return export_genai(exported.base, exported.folder / "base", bundles, tmp_path_factory.mktemp("genai") / "out")


def test_the_folder_says_how_to_run_the_graph_and_has_every_adapter_in_float32(exported, folder):
    settings = json.loads((folder / CONFIG).read_text())
    decoder = settings["model"]["decoder"]
    assert settings["search"]["past_present_share_buffer"] is True
    session = ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    shapes = {i.name: i.shape for i in session.get_inputs()}
    last = decoder["num_hidden_layers"] - 1
    assert shapes[decoder["inputs"]["past_key_names"] % last][1::2] == [
        decoder["num_key_value_heads"],
        decoder["head_size"],
    ]
    assert decoder["inputs"]["past_value_names"] % (last + 1) not in shapes
    assert settings["model"]["eos_token_id"] == [2]
    for name in ADAPTERS:
        held = ort.AdapterFormat.read_adapter(str(folder / f"{name}.onnx_adapter")).get_parameters()
        original = exported.loaded[name].tensors()
        assert held.keys() == original.keys()
        assert all(np.array_equal(value.numpy(), original[key].numpy()) for key, value in held.items())
        assert (folder / f"{name}.onnx_adapter").stat().st_mode & 0o777 == 0o600


def test_an_altered_adapter_is_refused_and_what_was_there_stays(exported, tmp_path, adapter_copy):
    out = tmp_path / "out"
    export_genai(exported.base, exported.folder / "base", {}, out)
    before = (out / MANIFEST).read_bytes()
    damaged = adapter_copy / "adapter.onnx_adapter"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(BundleError, match="sha256"):
        export_genai(exported.base, exported.folder / "base", {"ada": adapter_copy}, out)
    assert (out / MANIFEST).read_bytes() == before
    assert not list(out.glob("*.onnx_adapter"))


@pytest.fixture
def adapter_copy(exported, tmp_path: Path) -> Path:
    return shutil.copytree(exported.folder / "rank 2", tmp_path / "copy")


def test_a_graph_whose_adapters_must_be_fed_is_refused(exported, tmp_path):
    export_base(exported.base, tmp_path / "web", key=KEY, options=ExportOptions(variant="required"))
    with pytest.raises(BundleError, match="variant 'optional'"):
        export_genai(exported.base, tmp_path / "web", {}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("precision", ["float32", "int4"])
def test_genai_writes_what_our_runtime_writes_with_every_adapter_and_as_the_base_again(exported, tmp_path, precision):
    export_base(exported.base, tmp_path / "base", key=KEY, options=ExportOptions(precision=precision))
    bundles = {name: exported.folder / name for name in ADAPTERS}
    folder = export_genai(exported.base, tmp_path / "base", bundles, tmp_path / "genai")
    never_ending(folder)
    runtime = Runtime(tmp_path / "base")
    model = og.Model(str(folder))
    adapters = og.Adapters(model)
    for name in ADAPTERS:
        adapters.load(str(folder / f"{name}.onnx_adapter"), name)

    def written(name: str | None) -> list[int]:
        settings = og.GeneratorParams(model)
        settings.set_search_options(max_length=len(PROMPT) + 24, do_sample=False)
        generator = og.Generator(model, settings)
        if name:
            generator.set_active_adapter(adapters, name)
        generator.append_tokens(np.array([PROMPT], np.int32))
        while not generator.is_done():
            generator.generate_next_token()
        return [int(i) for i in generator.get_sequence(0)][len(PROMPT) :]

    base = written(None)
    assert len(base) == 24
    for name in [None, *ADAPTERS, None]:
        adapter = runtime.load(exported.folder / name) if name else None
        theirs = written(name)
        assert theirs == list(runtime.generate(PROMPT, adapter, tokens=24, ends=()))
        assert (theirs == base) == (name is None)


def never_ending(folder: Path) -> None:
    """Let no text end, so that many tokens can be compared."""
    settings = json.loads((folder / CONFIG).read_text())
    settings["model"]["eos_token_id"] = [2047]
    (folder / CONFIG).write_text(json.dumps(settings))


def test_the_export_command_writes_the_folder_beside_a_runs_bundles(exported, tmp_path):
    run = tmp_path / "runs" / "demo"
    for owner in ("ada", "bo"):
        exported.adapters["both"].save(run / "clients" / owner / "personal")
    (run / "scenario.json").write_text(json.dumps({"base": {"name": "keyboard", "dtype": "float32"}}))
    (run / "run.json").write_text(json.dumps({"started": "2025-11-22T10:00:00+00:00"}))
    app = typer.Typer()
    app.command()(export)
    result = CliRunner().invoke(app, ["--run", str(run), "--genai", "--precision", "int4"])
    assert result.exit_code == 0, result.output
    made = run / "device" / "genai"
    assert {path.name for path in made.glob("*.onnx_adapter")} == {"ada.onnx_adapter", "bo.onnx_adapter"}
    assert (made / CONFIG).is_file()
    refused = CliRunner().invoke(app, ["--run", str(run), "--genai", "--merged", "--user", "ada"])
    assert "one of the two" in str(refused.exception)
