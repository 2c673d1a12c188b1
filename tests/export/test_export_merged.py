"""One person's model in one file says what their adapter over the base says, and takes no other."""

from stat import S_IMODE

import numpy as np
import onnxruntime as ort
import pytest
import torch

from fedpeft.base import load_base
from fedpeft.device import Runtime
from fedpeft.errors import AdapterError, BundleError
from fedpeft.export import ExportOptions, export_merged
from fedpeft.export.fill import Ground
from fedpeft.methods import Attached, parse_method
from fedpeft.methods.attached import SHARED
from fedpeft.signing.signature import SigningKey

KEY = SigningKey.from_private_bytes(bytes(32))
IDS = np.random.default_rng(3).integers(5, 2048, 30).tolist()

METHODS = [
    {"name": "lora", "rank": 4},
    {"name": "lora", "rank": 4, "dora": True},
    {"name": "ia3"},
    {"name": "bitfit"},
    {"name": "pfeiffer", "activation": "gelu"},
    {"name": "parallel_adapter"},
    {"name": "adapter_lora"},
    {"name": "fed_sb", "rank": 8},
    {"name": "diff_pruning"},
    {"name": "full"},
]


def trained(method: dict, deviation: float):
    own = load_base("keyboard", "float32")
    attached = Attached(own, parse_method(method), None, seed=0)
    start = attached.initial[SHARED]
    noise = np.random.default_rng(1).normal(0, deviation, start.size).astype(np.float32)
    attached.write(SHARED, start + noise)
    attached.activate(SHARED)
    with torch.no_grad():
        logits = attached.model(input_ids=torch.tensor([IDS])).logits[0].numpy()
    return attached.adapter(SHARED, start + noise), logits


@pytest.mark.parametrize("method", METHODS, ids=lambda method: "-".join(map(str, method.values())))
def test_a_merged_model_is_torchs_with_the_adapter(exported, base, tmp_path, method):
    adapter, theirs = trained(method, 0.002 if method["name"] == "full" else 0.03)
    manifest = export_merged(adapter, tmp_path / "ada", owner="ada", ground=Ground(base), key=KEY)
    ours = Runtime(tmp_path / "ada").logits(IDS)
    assert np.abs(ours - theirs).max() <= 1e-4
    assert np.abs(ours - exported.runtime.logits(IDS)).max() > 1e-2
    assert manifest.tensors == {}
    assert manifest.details["merged"] == "ada"


def test_a_merged_model_is_its_owners_alone_and_takes_no_adapter(exported, base, tmp_path):
    export_merged(exported.adapters["rank 8"], tmp_path / "ada", owner="ada", ground=Ground(base), key=KEY)
    assert {S_IMODE(path.stat().st_mode) for path in (tmp_path / "ada").iterdir()} == {0o600}
    session = ort.InferenceSession(tmp_path / "ada" / "model.onnx")
    assert session.get_overridable_initializers() == []
    with pytest.raises(BundleError, match="base"):
        Runtime(tmp_path / "ada").load(exported.folder / "rank 8")


@pytest.mark.parametrize("precision", ["int8", "int4", "dynamic-int8"])
def test_a_merged_model_can_be_quantized(exported, base, tmp_path, precision):
    options = ExportOptions(precision=precision)
    ground = Ground(base)
    export_merged(exported.adapters["rank 2"], tmp_path / "a", owner="a", ground=ground, key=KEY, options=options)
    ours, theirs = Runtime(tmp_path / "a").logits(IDS), exported.torch_logits(IDS, "rank 2")
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.97


def test_what_comes_before_the_text_cannot_be_merged(base, tmp_path):
    for name in ("prompt_tuning", "p_tuning_v2"):
        adapter, _ = trained({"name": name, "length": 4}, 0.03)
        with pytest.raises(AdapterError, match="a prompt or prefix"):
            export_merged(adapter, tmp_path / "ada", owner="ada", ground=Ground(base), key=KEY)
    assert list(tmp_path.iterdir()) == []
