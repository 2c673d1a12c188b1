"""Decoders that no graph is written for by hand: traced by torch, run by the same runtime, equal to peft."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime_genai as og
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedModel

from fedpeft.adapters import Adapter
from fedpeft.base import load_base
from fedpeft.base.tokenizer import train_tokenizer
from fedpeft.device import LoadedAdapter, Runtime
from fedpeft.errors import BaseError, ScenarioError
from fedpeft.export import ExportOptions, export_adapter, export_base
from fedpeft.export.fill import Ground
from fedpeft.export.genai import CONFIG, export_genai
from fedpeft.signing.signature import SigningKey

KEY = SigningKey.from_private_bytes(bytes(32))
TEXTS = ["so what do you want to do today", "i think i am going to the beach", "haha that is really funny"] * 4
VOCABULARY = 300

SIZES = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2}
# So large a table that torch leaves its transpose in the graph; a small one it copies.
WIDE = 24_000
GPT2 = GPT2LMHeadModel, GPT2Config(n_embd=48, n_layer=2, n_head=4, n_positions=96, **{**SIZES, "vocab_size": WIDE})
NEOX = (
    GPTNeoXForCausalLM,
    GPTNeoXConfig(
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=96,
        **SIZES,
    ),
)
TARGETS = {
    "gpt2": ["c_attn", "c_proj", "c_fc"],
    "neox": ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"],
}


@dataclass(frozen=True)
class Case:
    """A decoder on disk and in a bundle, with two adapters as peft holds them."""

    name: str
    folder: Path
    source: Path
    runtime: Runtime
    adapters: dict[str, LoadedAdapter]
    peft: PreTrainedModel

    def torch_logits(self, ids: list[int], adapter: str | None) -> np.ndarray:
        with torch.no_grad():
            if adapter is None:
                with self.peft.disable_adapter():
                    return self.peft(input_ids=torch.tensor([ids])).logits[0].numpy()
            self.peft.set_adapter(adapter)
            return self.peft(input_ids=torch.tensor([ids])).logits[0].numpy()


@pytest.fixture(scope="module", params=["gpt2", "neox"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    kind, config = {"gpt2": GPT2, "neox": NEOX}[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    kind(config).save_pretrained(folder / "source")
    train_tokenizer(TEXTS, VOCABULARY).save_pretrained(folder / "source")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDPEFT_HOME", str(folder / "home"))
        base = load_base(str(folder / "source"), "float32")
        options = ExportOptions(sites=frozenset({"lora", "scale", "bias"}))
        manifest = export_base(base, folder / "base", key=KEY, options=options)
        ground = Ground(base)
        _ = ground.weights  # while the base is as it was published
    runtime, adapters = Runtime(folder / "base"), {}
    peft = base.model
    for seed, (name, rank, patterns) in enumerate(
        [
            ("wide", 8, {}),
            ("mixed", 4, {"rank_pattern": {TARGETS[request.param][0]: 2}, "use_rslora": True}),
            ("dora", 4, {"use_dora": True}),
        ]
    ):
        settings = LoraConfig(
            r=rank, lora_alpha=12, target_modules=TARGETS[request.param], task_type="CAUSAL_LM",
            fan_in_fan_out=request.param == "gpt2", **patterns,
        )  # fmt: skip
        if seed == 0:
            peft = get_peft_model(base.model, settings, adapter_name=name)
        else:
            peft.add_adapter(name, settings)
        generator = torch.Generator().manual_seed(seed)
        for parameter, value in peft.named_parameters():
            if f".{name}." in parameter:
                drawn = torch.randn(value.shape, generator=generator)
                value.data = value.data * (1 + 0.2 * drawn) if "magnitude" in parameter else 0.2 * drawn
        peft.save_pretrained(folder / "peft", selected_adapters=[name])
        adapter = Adapter.load(folder / "peft" / name, base.fingerprint)
        export_adapter(adapter, folder / name, owner=name, base=manifest, key=KEY, ground=ground)
        adapters[name] = runtime.load(folder / name)
    peft.eval()
    return Case(request.param, folder, folder / "source", runtime, adapters, peft)


def prompts() -> list[list[int]]:
    random = np.random.default_rng(3)
    return [random.integers(5, VOCABULARY, length).tolist() for length in (1, 7, 50)]


@pytest.mark.parametrize("name", [None, "wide", "mixed", "dora"])
def test_a_traced_decoder_scores_as_peft_does(case, name):
    for ids in prompts():
        ours = case.runtime.logits(ids, case.adapters.get(name))
        assert np.abs(ours - case.torch_logits(ids, name)).max() <= 1e-4


@pytest.mark.parametrize("name", [None, "wide", "mixed", "dora"])
def test_a_traced_decoder_with_a_cache_writes_what_peft_writes_without_one(case, name):
    prompt = prompts()[1]
    ours = list(case.runtime.generate(prompt, case.adapters.get(name), tokens=20, ends=()))
    theirs = list(prompt)
    for _ in range(20):
        theirs.append(int(case.torch_logits(theirs, name)[-1].argmax()))
    assert ours == theirs[len(prompt) :]


@pytest.mark.parametrize("name", ["wide", "mixed", "dora"])
def test_an_adapter_changes_what_a_traced_decoder_says(case, name):
    for ids in prompts():
        assert np.abs(case.runtime.logits(ids, case.adapters[name]) - case.runtime.logits(ids)).max() > 1e-2
    assert case.runtime.suggest("i think ", case.adapters[name]) != case.runtime.suggest("i think ")


def test_a_tied_head_is_stored_once(case):
    graph = onnx.load(case.folder / "base" / "model.onnx", load_external_data=False).graph
    tables = [i.name for i in graph.initializer if sorted(i.dims) in ([48, VOCABULARY], [48, WIDE])]
    assert len(tables) == {"gpt2": 1, "neox": 2}[case.name]
    assert ("FusedMatMul" in {node.op_type for node in graph.node}) == (case.name == "gpt2")


def test_nothing_of_the_machine_that_traced_is_in_the_bundle(case):
    content = (case.folder / "base" / "model.onnx").read_bytes()
    assert b"site-packages" not in content
    assert b"stack_trace" not in content


def test_a_base_is_traced_once_and_then_read_from_its_folder(case, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDPEFT_HOME", str(case.folder / "home"))
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: pytest.fail("traced again"))
    base = load_base(str(case.source), "float32")
    again = export_base(base, tmp_path / "again", key=KEY, options=ExportOptions(precision="int8"))
    ids = prompts()[1]
    runtime = Runtime(tmp_path / "again")
    adapter = runtime.load(case.folder / "wide")
    with_int8, exact = runtime.logits(ids, adapter), case.runtime.logits(ids, case.adapters["wide"])
    assert again.precision == "int8"
    assert 0 < np.abs(with_int8 - exact).max() < 0.1
    assert np.abs(with_int8 - runtime.logits(ids)).max() > 0.1


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (ExportOptions(variant="rows"), "export.variant"),
        (ExportOptions(sites=frozenset({"bottleneck"})), "export.sites"),
        (ExportOptions(backend="native"), "backend torch"),
    ],
)
def test_what_tracing_cannot_do_is_refused_and_leaves_nothing(case, tmp_path, monkeypatch, options, complaint):
    monkeypatch.setenv("FEDPEFT_HOME", str(case.folder / "home"))
    base = load_base(str(case.source), "float32")
    with pytest.raises((ScenarioError, BaseError), match=complaint):
        export_base(base, tmp_path / "bundle", key=KEY, options=options)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "dynamic-int8"])
def test_the_traced_keyboard_and_the_native_one_are_the_same_network(exported, tmp_path, precision):
    options = ExportOptions(backend="torch", precision=precision)
    manifest = export_base(exported.base, tmp_path / "traced", key=KEY, options=options)
    native = export_base(exported.base, tmp_path / "native", key=KEY, options=ExportOptions(precision=precision))
    assert manifest.tensors == exported.manifest.tensors
    assert manifest.decoder == exported.manifest.decoder
    # Its table is tied, and so small that torch copies its transpose.
    sizes = [sum(m.files[name].bytes for name in ("model.onnx", "model.onnx.data")) for m in (manifest, native)]
    assert abs(sizes[0] - sizes[1]) < 0.05 * sizes[1]
    traced = Runtime(tmp_path / "traced")
    random = np.random.default_rng(0)
    for name in ("rank 8", "rank 2", "both"):
        adapter = traced.load(exported.folder / name)
        ids = random.integers(5, 2048, 40).tolist()
        error = np.abs(traced.logits(ids, adapter) - exported.runtime.logits(ids, exported.loaded[name])).max()
        assert error <= (1e-4 if precision == "float32" else 1.0)
        assert np.abs(traced.logits(ids, adapter) - traced.logits(ids)).max() > 4.0
        if precision == "float32":
            ours, theirs = (
                list(runtime.generate(ids, chosen, tokens=16, ends=()))
                for runtime, chosen in ((traced, adapter), (exported.runtime, exported.loaded[name]))
            )
            assert ours == theirs


def test_onnxruntime_genai_writes_what_our_runtime_writes_from_a_traced_graph(case, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDPEFT_HOME", str(case.folder / "home"))
    base = load_base(str(case.source), "float32")
    bundles = {name: case.folder / name for name in case.adapters}
    folder = export_genai(base, case.folder / "base", bundles, tmp_path / "genai")
    settings = json.loads((folder / CONFIG).read_text())
    assert settings["search"]["past_present_share_buffer"] is False
    settings["model"]["eos_token_id"] = [VOCABULARY - 1]
    (folder / CONFIG).write_text(json.dumps(settings))
    model, prompt = og.Model(str(folder)), prompts()[1]
    adapters = og.Adapters(model)
    written = {}
    for name in (None, *bundles):
        chosen = og.GeneratorParams(model)
        chosen.set_search_options(max_length=len(prompt) + 20, do_sample=False)
        generator = og.Generator(model, chosen)
        if name:
            adapters.load(str(folder / f"{name}.onnx_adapter"), name)
            generator.set_active_adapter(adapters, name)
        generator.append_tokens(np.array([prompt], np.int32))
        while not generator.is_done():
            generator.generate_next_token()
        written[name] = [int(i) for i in generator.get_sequence(0)][len(prompt) :]
        ours = case.runtime.generate(prompt, case.adapters.get(name), tokens=20, ends=(VOCABULARY - 1,))
        assert [i for i in written[name] if i != VOCABULARY - 1] == list(ours)
    assert all(written[name] != written[None] for name in bundles)
