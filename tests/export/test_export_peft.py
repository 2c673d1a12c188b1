"""Folders that peft itself saved, of every type that has a place in the graph, answer as peft does."""

import warnings

import numpy as np
import onnxruntime as ort
import pytest
import torch
from peft import (
    IA3Config,
    LoraConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    VeraConfig,
    get_peft_model,
)

from fedpeft.adapters import Adapter, Schema
from fedpeft.base import load_base
from fedpeft.device.bundle import ADAPTER, PREFIX
from fedpeft.errors import AdapterError
from fedpeft.export import ExportOptions, export_adapter, export_base
from fedpeft.export.fill import Ground, fill
from fedpeft.signing.signature import SigningKey

KEY = SigningKey.from_private_bytes(bytes(32))
IDS = np.random.default_rng(4).integers(5, 2048, 20).tolist()
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
TASK = "CAUSAL_LM"
PROMPT = {"num_virtual_tokens": 4, "task_type": TASK}

CONFIGS = {
    "dora": lambda: LoraConfig(r=4, use_dora=True, target_modules=LINEAR, init_lora_weights=False, task_type=TASK),
    "rslora": lambda: LoraConfig(r=4, use_rslora=True, target_modules=LINEAR, init_lora_weights=False, task_type=TASK),
    "ia3": lambda: IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "vera": lambda: VeraConfig(r=16, target_modules=LINEAR, save_projection=False, task_type=TASK),
    "vera with its matrices": lambda: VeraConfig(r=16, target_modules=LINEAR, save_projection=True, task_type=TASK),
    "prompt": lambda: PromptTuningConfig(**PROMPT),
    "p_tuning": lambda: PromptEncoderConfig(**PROMPT, encoder_hidden_size=32),
    "prefix": lambda: PrefixTuningConfig(**PROMPT),
}


@pytest.fixture(scope="module")
def bundle(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    options = ExportOptions(sites=frozenset({"lora", "scale", "bias", "prompt"}))
    manifest = export_base(base, folder, key=KEY, options=options)
    settings = ort.SessionOptions()
    settings.intra_op_num_threads, settings.log_severity_level = 1, 3
    return manifest, ort.InferenceSession(folder / "model.onnx", settings)


@pytest.mark.parametrize("kind", list(CONFIGS))
def test_a_folder_that_peft_saved_answers_as_peft(base, bundle, tmp_path, kind):
    manifest, session = bundle
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(load_base("keyboard", "float32").model, CONFIGS[kind]())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "embedding.weight" not in name:
                parameter.add_(0.05 * torch.randn_like(parameter))
        model.eval()
        theirs = model(input_ids=torch.tensor([IDS])).logits[0].numpy()[-len(IDS) :]
    model.save_pretrained(tmp_path / "peft")
    adapter = Adapter.load(tmp_path / "peft", base.fingerprint)
    export_adapter(adapter, tmp_path / "ada", owner="ada", base=manifest, key=KEY, ground=Ground(base))

    facts, options, handle = manifest.decoder, ort.RunOptions(), ort.LoraAdapter()
    shape = (1, facts.kv_heads, 0, facts.head_dim)
    past = {
        f"past_key_values.{i}.{part}": ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32))
        for i in range(facts.layers)
        for part in ("key", "value")
    }
    prefixes, ids = 0, list(IDS)
    if (tmp_path / "ada" / PREFIX).exists():
        content = ort.AdapterFormat.read_adapter(str(tmp_path / "ada" / PREFIX))
        past = content.get_parameters()
        prefixes = 4
    if (tmp_path / "ada" / ADAPTER).exists():
        handle.Load(str(tmp_path / "ada" / ADAPTER))
        options.add_active_adapter(handle)
        ids = [*range(2048, 2052), *IDS] if kind in ("prompt", "p_tuning") else ids
    given = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids) + prefixes), np.int64)}
    values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in given.items()}
    ours = session.run_with_ort_values(["logits"], {**values, **past}, options)[0].numpy()[0, -len(IDS) :]
    assert np.abs(ours - theirs).max() <= 1e-4
    with torch.no_grad():
        alone = load_base("keyboard", "float32").model(input_ids=torch.tensor([IDS])).logits[0].numpy()
    assert np.abs(ours - alone).max() > 1e-2


def test_a_type_of_pefts_without_a_place_is_refused_by_name(base):
    schema = Schema.of({"x": (1,)})
    adapter = Adapter(schema, np.ones(1, np.float32), {"peft_type": "OFT"}, base.fingerprint)
    with pytest.raises(AdapterError, match="found 'OFT'"):
        fill(adapter, Ground(base))
