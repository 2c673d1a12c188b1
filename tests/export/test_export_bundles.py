"""What is written: whole, private where it is personal, and refused where it would be wrong."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from stat import S_IMODE

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from fedpeft.adapters import Adapter, Schema
from fedpeft.base import load_base
from fedpeft.device import Bundle
from fedpeft.errors import AdapterError, BundleError
from fedpeft.export import export_adapter, export_base
from fedpeft.export.adapter import write_onnx_adapter
from fedpeft.export.fill import fill
from fedpeft.signing.signature import SigningKey

KEY = SigningKey.from_private_bytes(bytes(32))


@contextmanager
def disk_full_after(size: int) -> Iterator[None]:
    """Let no file grow beyond ``size`` bytes, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def renamed(adapter: Adapter, old: str, new: str) -> Adapter:
    tensors = {name.replace(old, new): tensor for name, tensor in adapter.tensors().items()}
    schema = Schema.of({name: t.shape for name, t in tensors.items()})
    return replace(adapter, schema=schema, vector=schema.flatten(tensors))


def test_a_base_bundle_holds_one_graph_with_its_weights_once(exported):
    folder = exported.folder / "base"
    assert sorted(contents(folder)) == [
        "manifest.json",
        "manifest.sig",
        "model.onnx",
        "model.onnx.data",
        "tokenizer.json",
    ]
    assert (folder / "model.onnx.data").stat().st_size < 1.05 * exported.base.float32_bytes
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    stamps = {entry.key: entry.value for entry in model.metadata_props}
    assert stamps["fedpeft.base_fingerprint"] == exported.base.fingerprint


def test_every_linear_layer_has_optional_inputs_with_a_rank_of_its_own(exported):
    session = ort.InferenceSession(exported.folder / "base" / "model.onnx")
    optional = {value.name: value.shape for value in session.get_overridable_initializers()}
    assert optional.keys() == exported.manifest.tensors.keys()
    assert len(optional) == 2 * 7 * exported.manifest.decoder.layers
    ranks = {dimension for shape in optional.values() for dimension in shape if isinstance(dimension, str)}
    assert len(ranks) == len(optional) / 2
    assert not any("lora" in value.name for value in session.get_inputs())


def test_a_base_exports_to_the_same_bytes_from_any_precision_and_at_any_time(exported, tmp_path):
    export_base(load_base("keyboard", "bfloat16"), tmp_path / "again", key=KEY)
    assert contents(tmp_path / "again") == contents(exported.folder / "base")


def test_an_adapter_exports_to_the_same_bytes_every_time(exported, tmp_path):
    export_adapter(exported.adapters["both"], tmp_path / "both", owner="both", base=exported.manifest, key=KEY)
    assert contents(tmp_path / "both") == contents(exported.folder / "both")


def test_an_adapter_bundle_is_its_owners_alone_and_opens_as_an_adapter(exported):
    folder = exported.folder / "rank 8"
    assert S_IMODE(folder.stat().st_mode) == 0o700
    assert {S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    Bundle.open(folder, "adapter").verify()
    again = Adapter.load(folder, exported.base.fingerprint)
    assert np.array_equal(again.vector, exported.adapters["rank 8"].vector)


def test_exporting_again_replaces_a_bundle(exported, tmp_path):
    for name in ("rank 8", "rank 2"):
        export_adapter(exported.adapters[name], tmp_path / "ada", owner=name, base=exported.manifest, key=KEY)
    assert Bundle.open(tmp_path / "ada", "adapter").manifest.name == "rank 2"
    assert [path.name for path in tmp_path.iterdir()] == ["ada"]


def test_a_folder_that_is_no_bundle_is_left_alone(exported, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="choose another folder"):
        export_base(exported.base, tmp_path, key=KEY)
    assert contents(tmp_path) == {"thesis.txt": b"years of work"}


@pytest.mark.parametrize("limit", [1_000, 100_000, 10_000_000])
def test_a_full_disk_leaves_no_half_written_base(exported, tmp_path, limit):
    with disk_full_after(limit), pytest.raises(BundleError, match="free some space"):
        export_base(exported.base, tmp_path / "base", key=KEY)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_last_whole_adapter(exported, tmp_path):
    export_adapter(exported.adapters["rank 2"], tmp_path / "ada", owner="ada", base=exported.manifest, key=KEY)
    before = contents(tmp_path / "ada")
    with disk_full_after(200_000), pytest.raises(BundleError, match="free some space"):
        export_adapter(exported.adapters["rank 8"], tmp_path / "ada", owner="ada", base=exported.manifest, key=KEY)
    assert contents(tmp_path / "ada") == before
    assert [path.name for path in tmp_path.iterdir()] == ["ada"]


def test_a_full_disk_is_noticed_while_onnxruntime_writes(exported, tmp_path):
    inputs = fill(exported.adapters["rank 8"]).inputs
    with disk_full_after(200_000), pytest.raises(BundleError, match="free some space"):
        write_onnx_adapter(inputs, tmp_path / "adapter.onnx_adapter")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda a: replace(a, base="0" * 64), "adapter base"),
        (lambda a: replace(a, config={**a.config, "peft_type": "HRA"}), "found 'HRA', expected LORA"),
        (lambda a: replace(a, config={**a.config, "peft_type": "IA3"}), "ends with .ia3_l"),
        (lambda a: replace(a, config={**a.config, "use_dora": True}), "use_dora"),
        (lambda a: replace(a, config={**a.config, "bias": "all"}), "bias"),
        (lambda a: replace(a, config={**a.config, "modules_to_save": ["lm_head"]}), "modules_to_save"),
        (lambda a: replace(a, config={**a.config, "r": 5}), "rank of"),
        (lambda a: replace(a, vector=np.full_like(a.vector, np.nan)), "NaN"),
        (lambda a: renamed(a, "q_proj", "w_proj"), "w_proj"),
        (lambda a: renamed(a, "q_proj.lora_A.weight", "q_proj.bias"), "q_proj.bias"),
        (lambda a: replace(a, schema=Schema(()), vector=a.vector[:0]), "tensors"),
    ],
)
def test_an_adapter_that_would_not_be_itself_on_a_device_is_refused(exported, tmp_path, change, complaint):
    adapter = change(exported.adapters["rank 8"])
    with pytest.raises(AdapterError, match=complaint):
        export_adapter(adapter, tmp_path / "ada", owner="ada", base=exported.manifest, key=KEY)
    assert list(tmp_path.iterdir()) == []
