"""Encoders with a head of the adapter's own: what onnxruntime computes is what torch computes, for every kind of head."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertModel,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
)

from fedpeft.base import Base, load_base
from fedpeft.device.classifier import Classifier
from fedpeft.device.sites import neutral
from fedpeft.errors import AdapterError, BaseError, BundleError, ScenarioError
from fedpeft.export import ExportOptions, export_adapter, export_base
from fedpeft.export.fill import Ground, fill
from fedpeft.export.fill.ground import as_adapter
from fedpeft.export.options import site_kind
from fedpeft.methods import Attached, parse_method
from fedpeft.methods.attached import SHARED
from fedpeft.signing.signature import SigningKey
from tests.tasks.encoder import publish_encoder

KEY = SigningKey.from_private_bytes(bytes(32))
LABELS = ("card", "music", "refund", "weather")
TEXTS = [
    "please show me my card pin today now what about a new chip",
    "rain",
    "i want a refund please",
    "what about the new song the new album the new band the song what about the song",
    "",
]
SMALL = {"vocab_size": 40, "max_position_embeddings": 64}
BERT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
MARKS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
ENCODERS = {
    "bert, mean": ("mean", lambda: BertModel(BertConfig(**SMALL, **BERT))),
    "bert without its pooler, mean": (
        "mean",
        lambda: BertModel(BertConfig(**SMALL, **BERT), add_pooling_layer=False),
    ),
    "bert with its pooler": ("model", lambda: BertModel(BertConfig(**SMALL, **BERT))),
    "bert with a pooler to train": (
        "model",
        lambda: BertModel(BertConfig(**SMALL, **BERT), add_pooling_layer=False),
    ),
    "roberta with a head of two layers": (
        "model",
        lambda: RobertaModel(RobertaConfig(**SMALL, **BERT, pad_token_id=0), add_pooling_layer=False),
    ),
    "albert, which runs one layer twice": (
        "mean",
        lambda: AlbertModel(AlbertConfig(**SMALL, **BERT, embedding_size=16)),
    ),
    "modernbert, whose head has a norm that mean pooling leaves out": (
        "mean",
        lambda: ModernBertModel(ModernBertConfig(**SMALL, **BERT, **MARKS)),
    ),
    "distilbert with a head of two layers": (
        "model",
        lambda: DistilBertModel(DistilBertConfig(**SMALL, dim=32, hidden_dim=48, n_layers=2, n_heads=2)),
    ),
}


@dataclass
class Encoded:
    """An encoder with a method attached to it in torch, and its bundle."""

    base: Base
    attached: Attached
    ground: Ground
    pooling: str
    folder: Path

    def train(self, seed: int, deviation: float = 0.2) -> np.ndarray:
        size = self.attached.schemas[SHARED].size
        start = self.attached.initial[SHARED]
        return (start + np.random.default_rng(seed).normal(0, deviation, size)).astype(np.float32)

    def export(self, name: str, vector: np.ndarray, precision: str = "float32") -> Classifier:
        adapter = self.attached.adapter(SHARED, vector)
        kinds = {site_kind(site) for site in fill(adapter, self.ground).inputs} - {None}
        options = ExportOptions(precision=precision, pooling=self.pooling, sites=frozenset({"lora", *kinds}))
        manifest = export_base(self.base, self.folder / precision, key=KEY, options=options)
        export_adapter(
            adapter, self.folder / name, owner=name, base=manifest, key=KEY, ground=self.ground, labels=LABELS
        )
        return Classifier(self.folder / precision)

    def torch_logits(self, text: str, vector: np.ndarray | None) -> np.ndarray:
        """One text at a time, so without padding, as the architecture or the mean over its tokens has it."""
        if vector is not None:
            self.attached.write(SHARED, vector)
        self.attached.activate(*([SHARED] if vector is not None else []))
        ids = torch.tensor([self.base.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            if self.pooling == "model":
                return self.attached.model(input_ids=ids).logits[0].numpy()
            encoder = getattr(self.attached.model, self.attached.model.base_model_prefix)
            return self.attached.model.classifier(encoder(input_ids=ids).last_hidden_state.mean(1))[0].numpy()


def attach(folder: Path, pooling: str, settings: dict) -> Encoded:
    base = load_base(str(folder / "source"), "float32", labels=len(LABELS))
    attached = Attached(base, parse_method(settings), None, seed=0)
    return Encoded(base, attached, Ground(base, 0, pooling), pooling, folder)


def publish(folder: Path, make: Callable[[], PreTrainedModel]) -> None:
    publish_encoder(folder / "source")  # for its tokenizer
    torch.manual_seed(0)
    make().save_pretrained(folder / "source")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory):
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDPEFT_HOME", str(tmp_path_factory.mktemp("home")))
        yield


SELDOM = {name for name in ENCODERS if name.startswith(("albert", "modernbert"))}


@pytest.fixture(
    scope="module", params=[pytest.param(n, marks=pytest.mark.slow if n in SELDOM else ()) for n in ENCODERS]
)
def encoded(request: pytest.FixtureRequest, home, tmp_path_factory: pytest.TempPathFactory) -> Encoded:
    pooling, make = ENCODERS[request.param]
    folder = tmp_path_factory.mktemp("encoder")
    publish(folder, make)
    return attach(folder, pooling, {"name": "lora", "rank": 4, "targets": "all-linear"})


def test_classes_of_a_padded_batch_are_torchs_of_each_text_alone(encoded):
    vectors = {name: encoded.train(seed) for seed, name in enumerate(("ada", "bo"))}
    for name, vector in vectors.items():
        classifier = encoded.export(name, vector)
    adapters = {name: classifier.load(encoded.folder / name) for name in vectors}
    for name, vector in vectors.items():
        theirs = np.stack([encoded.torch_logits(text, vector) for text in TEXTS])
        assert np.abs(classifier.logits(TEXTS, adapters[name]) - theirs).max() <= 1e-4
    ours = {name: classifier.logits(TEXTS, adapters[name]) for name in vectors}
    assert np.abs(ours["ada"] - ours["bo"]).max() > 1e-2
    assert np.abs(classifier.embed(TEXTS, adapters["ada"]) - classifier.embed(TEXTS)).max() > 1e-3
    assert classifier.embed(TEXTS).shape == (len(TEXTS), 32)


@pytest.fixture(scope="module")
def bert(home, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    publish(folder, ENCODERS["bert, mean"][1])
    return folder


METHODS = {
    "dora": {"name": "lora", "rank": 4, "dora": True},
    "rslora": {"name": "lora", "rank": 4, "rslora": True, "rank_pattern": {"query": 2}},
    "ia3": {"name": "ia3"},
    "bitfit": {"name": "bitfit"},
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pooling", ["mean", "model"])
def test_other_methods_on_an_encoder_are_exact_too(bert, pooling, method):
    encoded = attach(bert, pooling, METHODS[method])
    vector = encoded.train(3, 0.5 if method == "ia3" else 0.1)
    classifier = encoded.export(f"{method}-{pooling}", vector)
    adapter = classifier.load(bert / f"{method}-{pooling}")
    theirs = np.stack([encoded.torch_logits(text, vector) for text in TEXTS])
    assert np.abs(classifier.logits(TEXTS, adapter) - theirs).max() <= 1e-4
    assert np.abs(classifier.embed(TEXTS, adapter) - classifier.embed(TEXTS)).max() > 1e-3


@pytest.mark.parametrize("precision", ["dynamic-int8", "int8", "int4"])
def test_quantized_encoders_keep_what_the_adapter_does(bert, precision):
    encoded = attach(bert, "mean", {"name": "lora", "rank": 4})
    vector = encoded.train(0)
    exact = encoded.export("ada", vector).load(bert / "ada")
    reference = Classifier(bert / "float32").logits(TEXTS, exact)
    classifier = encoded.export("ada", vector, precision)
    ours = classifier.logits(TEXTS, classifier.load(bert / "ada"))
    moved = np.abs(reference - np.stack([encoded.torch_logits(text, None) for text in TEXTS])).max()
    error = np.abs(ours - reference).max()
    assert 0 < error < {"dynamic-int8": 0.1, "int8": 0.1, "int4": 1.0}[precision] * moved


def test_an_adapter_for_a_layer_that_nothing_reads_exports_without_it(bert):
    encoded = attach(bert, "mean", {"name": "lora", "rank": 4, "targets": ["query", "dense"]})
    names = encoded.attached.adapter(SHARED, encoded.train(0)).tensors()
    assert any("pooler" in name for name in names)
    assert {"bert.pooler.dense"} == {name for name in encoded.ground.unread if "embed" not in name}
    encoded.export("ada", encoded.train(0))
    adapter = Classifier(bert / "float32").load(bert / "ada")
    assert not [name for name in adapter.manifest.tensors if "pooler" in name]
    assert len(adapter.manifest.tensors) == len(names) - 2


def test_an_adapter_without_a_head_is_refused(bert):
    encoded = attach(bert, "mean", {"name": "lora", "rank": 4})
    adapter = encoded.attached.adapter(SHARED, encoded.train(0))
    tensors = {name: t for name, t in adapter.tensors().items() if "classifier" not in name}
    manifest = export_base(encoded.base, bert / "float32", key=KEY)
    with pytest.raises(AdapterError, match=r"classifier\.weight"):
        export_adapter(
            as_adapter(tensors, adapter.config, adapter.base),
            bert / "headless",
            owner="x",
            base=manifest,
            key=KEY,
            ground=encoded.ground,
        )
    assert not (bert / "headless").exists()


def test_bottlenecks_on_an_encoder_are_refused_with_what_it_can_have(bert, tmp_path):
    base = load_base(str(bert / "source"), "float32", labels=4)
    with pytest.raises(ScenarioError, match="lora"):
        export_base(base, tmp_path / "out", key=KEY, options=ExportOptions(sites=frozenset({"bottleneck"})))
    assert not list(tmp_path.iterdir())


def test_a_graph_whose_inputs_must_all_be_fed_computes_the_same_and_is_not_opened_by_the_classifier(bert):
    encoded = attach(bert, "mean", {"name": "lora", "rank": 4, "targets": ["query"]})
    vector = encoded.train(5)
    classifier = encoded.export("ada", vector)
    adapter = classifier.load(bert / "ada")
    manifest = export_base(encoded.base, bert / "web", key=KEY, options=ExportOptions(variant="required"))
    with pytest.raises(BundleError, match="--variant optional"):
        Classifier(bert / "web")
    session = ort.InferenceSession(bert / "web" / "model.onnx", providers=["CPUExecutionProvider"])
    ids = np.array([encoded.base.tokenizer(TEXTS[0])["input_ids"]], np.int64)
    fed = {name: neutral(name, shape) for name, shape in manifest.tensors.items()}
    held = adapter.tensors()  # numpy sees their memory, and does not keep it
    fed |= {name: value.numpy() for name, value in held.items()}
    assert {i.name for i in session.get_inputs()} == {"input_ids", "attention_mask", *fed}
    (logits,) = session.run(["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids), **fed})
    assert np.abs(logits - classifier.logits(TEXTS[:1], adapter)).max() <= 1e-5
    assert np.abs(logits[0] - encoded.torch_logits(TEXTS[0], vector)).max() <= 1e-4


def test_a_head_with_a_norm_is_refused_where_it_would_run(home, tmp_path):
    publish(tmp_path, ENCODERS["modernbert, whose head has a norm that mean pooling leaves out"][1])
    base = load_base(str(tmp_path / "source"), "float32", labels=4)
    with pytest.raises(BaseError, match=r"head\.norm"):
        export_base(base, tmp_path / "out", key=KEY, options=ExportOptions(pooling="model"))
    assert not (tmp_path / "out").exists()
