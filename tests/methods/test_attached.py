"""Two adapters over one frozen base: both, one or none of them speak, and the base never moves."""

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import LlamaForCausalLM

from fedpeft.adapters import Adapter
from fedpeft.adapters.algebra import cat
from fedpeft.base import load_base
from fedpeft.data import load_federation
from fedpeft.data.windows import IGNORED, Windows
from fedpeft.errors import FedpeftError
from fedpeft.methods import Attached
from fedpeft.methods.attached import PRIVATE, SHARED
from fedpeft.methods.lora import Lora
from fedpeft.tasks.next_word import NextWord
from fedpeft.training import Training, train

from .tiny import LABELS, base_of, batch, bert, llama

SLOTS = pytest.mark.parametrize("slot", [SHARED, PRIVATE])
MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
IDS = torch.tensor([[1, 3, *range(400, 430), 2, 4, 600, 2]])


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits[0]


def random(attached: Attached, slot: str, deviation: float = 0.05) -> np.ndarray:
    size = attached.schemas[slot].size
    return np.random.default_rng(len(slot)).normal(0.0, deviation, size).astype(np.float32)


def own_text(count: int = 6) -> Windows:
    ids = np.random.default_rng(4).integers(5, 2048, (count, 16)).astype(np.int32)
    return Windows(ids, np.where(np.arange(16) < 2, IGNORED, ids).astype(np.int32))


@pytest.fixture(scope="module")
def attached(attach) -> Attached:
    return attach()


@SLOTS
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_can_be_trained_is_exactly_the_schema(attach, slot, dtype):
    made = attach(dtype=dtype)
    rank = {SHARED: 4, PRIVATE: 2}[slot]
    parameters = made.parameters(slot)
    config = made.base.model.config
    wide = config.intermediate_size - config.hidden_size
    sides = [
        (config.hidden_size, config.hidden_size + wide * (m in ("gate_proj", "up_proj", "down_proj"))) for m in MATRICES
    ]
    assert made.schemas[slot].size == rank * config.num_hidden_layers * sum(map(sum, sides))
    assert len(made.schemas[slot].shapes) == 2 * config.num_hidden_layers * len(MATRICES)
    assert sorted(tuple(p.shape) for p in parameters) == sorted(shape for _, shape in made.schemas[slot].shapes)
    trainable = {id(p) for p in made.model.parameters() if p.requires_grad}
    assert trainable == {id(p) for p in parameters}
    assert {p.dtype for p in parameters} == {torch.float32}


def test_a_kept_tensor_is_trained_and_the_others_are_still(attached):
    chosen = attached.parameters(SHARED, lambda name: "lora_B" in name and "layers.0" in name)
    assert len(chosen) == len(MATRICES)
    assert sum(p.requires_grad for p in attached.model.parameters()) == len(MATRICES)


def test_the_seeded_start_is_the_same_everywhere_and_changes_nothing(attach):
    one, same, other = attach(seed=5), attach(seed=5), attach(seed=6)
    for slot in (SHARED, PRIVATE):
        assert np.array_equal(one.initial[slot], same.initial[slot])
        assert not np.array_equal(one.initial[slot], other.initial[slot])
        of_b = one.schemas[slot].mask(lambda name: "lora_B" in name)
        assert (one.initial[slot][of_b] == 0.0).all()
        assert (one.initial[slot][~of_b] != 0.0).mean() > 0.99
        assert np.array_equal(one.read(slot), one.initial[slot])
    bare = logits(load_base("keyboard", "float32").model)
    for slots in ((SHARED,), (PRIVATE,), (SHARED, PRIVATE)):
        one.activate(*slots)
        assert torch.equal(logits(one.model), bare)


def test_attaching_does_not_disturb_the_global_generator(attach):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    attach(seed=9)
    assert torch.equal(torch.rand(3), expected)


@SLOTS
def test_what_is_written_is_what_is_read(attached, slot):
    vector = random(attached, slot)
    attached.write(slot, vector)
    assert np.array_equal(attached.read(slot), vector)
    read = attached.read(slot)
    read[:] = 0.0  # a copy: the model keeps its values
    assert np.array_equal(attached.read(slot), vector)


@SLOTS
def test_a_vector_of_another_size_is_refused(attached, slot):
    with pytest.raises(FedpeftError, match="adapter vector shape"):
        attached.write(slot, np.zeros(attached.schemas[slot].size + 1, np.float32))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_with_no_slot_active_the_base_answers_bit_for_bit(attach, dtype):
    bare = logits(load_base("keyboard", dtype).model)
    made = attach(dtype=dtype)
    made.write(SHARED, random(made, SHARED))
    made.write(PRIVATE, random(made, PRIVATE))
    assert not torch.equal(logits(made.model), bare)
    made.activate()
    assert torch.equal(logits(made.model), bare)
    made.activate(PRIVATE)
    assert not torch.equal(logits(made.model), bare)


def test_each_slot_counts_only_while_it_is_active(attached):
    answers = {}
    for slot in (SHARED, PRIVATE):
        attached.write(slot, random(attached, slot))
    for slots in ((SHARED,), (PRIVATE,), (SHARED, PRIVATE)):
        attached.activate(*slots)
        answers[slots] = logits(attached.model)
    attached.write(PRIVATE, 2 * random(attached, PRIVATE))
    attached.activate(SHARED)
    assert torch.equal(logits(attached.model), answers[SHARED,])
    pairs = [(a, b) for a in answers for b in answers if a < b]
    assert all((answers[a] - answers[b]).abs().max() > 1e-3 for a, b in pairs)


@pytest.mark.parametrize("rslora", [False, True])
def test_two_active_slots_are_the_joined_adapter(attach, rslora):
    made = attach(Lora(rank=4, alpha=8.0, rslora=rslora), Lora(rank=2, alpha=3.0))
    pair = []
    for slot in (SHARED, PRIVATE):
        vector = random(made, slot)
        made.write(slot, vector)
        pair.append(made.adapter(slot, vector))
    made.activate(SHARED, PRIVATE)
    both = logits(made.model)
    # The joined adapter in a model of its own, whose one slot has rank 6 and scaling 1.
    joined = cat(pair, [1.0, 1.0])
    alone = attach(Lora(rank=6, alpha=6.0), Lora(rank=1))
    alone.write(SHARED, joined.vector)
    alone.activate(SHARED)
    assert torch.allclose(logits(alone.model), both, atol=2e-4, rtol=0)
    made.activate(SHARED)
    assert (logits(made.model) - both).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_training_either_slot_leaves_the_base_bit_for_bit(attach, dtype):
    made = attach(dtype=dtype)
    before = {n: p.detach().clone() for n, p in made.model.named_parameters() if "lora_" not in n}
    assert sum(p.numel() for p in before.values()) == load_base("keyboard").parameters
    made.activate(SHARED, PRIVATE)
    task = NextWord(made.base, load_federation("keyboard"), 16)
    for slot in (SHARED, PRIVATE):
        train(made, slot, task, own_text(), Training(steps=2, learning_rate=0.05), seed=0)
        assert not np.array_equal(made.read(slot), made.initial[slot])
    after = dict(made.model.named_parameters())
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@SLOTS
def test_an_adapter_is_saved_and_written_back(attach, attached, slot, tmp_path):
    vector = random(attached, slot)
    adapter = attached.adapter(slot, vector)
    assert adapter.base == attached.base.fingerprint
    assert adapter.config["peft_type"] == "LORA"
    assert adapter.config["base_model_name_or_path"] == "keyboard"
    assert adapter.config["target_modules"] == sorted(MATRICES)
    adapter.save(tmp_path / slot)
    loaded = Adapter.load(tmp_path / slot, attached.base.fingerprint)
    assert loaded.schema == attached.schemas[slot]
    other = attach(seed=3)
    other.write(slot, loaded.vector)
    other.activate(slot)
    attached.write(slot, vector)
    attached.activate(slot)
    assert torch.equal(logits(other.model), logits(attached.model))


def test_attached_adapters_are_not_counted_as_the_base(attach):
    assert attach().base.parameters == load_base("keyboard", "float32").parameters


def test_named_modules_are_adapted_and_no_others(attach):
    made = attach(Lora(rank=2, targets=["q_proj", "down_proj"]), Lora(rank=1, targets=["v_proj"]))
    assert {name.split(".")[-3] for name in made.schemas[SHARED].names()} == {"q_proj", "down_proj"}
    assert {name.split(".")[-3] for name in made.schemas[PRIVATE].names()} == {"v_proj"}


@pytest.mark.parametrize("targets", [["nowhere"], [], ["q_proj", "q_porj"], ["embed_tokens"]])
def test_modules_that_cannot_be_adapted_are_refused_by_name(attach, targets):
    """A module that is silently left out is an adapter smaller than its owner thinks."""
    method = Lora(rank=2, targets=targets)
    with pytest.raises(FedpeftError, match="targets"):
        attach(method, method)


def test_the_model_is_still_transformers_own_and_its_dropouts_are_off():
    """Gradient checkpointing needs training mode; a base that drops at random would give every engine other numbers."""
    model = llama()
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    made = Attached(base_of(model), Lora(rank=2), Lora(rank=1), seed=0)
    assert type(made.model) is LlamaForCausalLM
    ids = batch("llama")["input_ids"]
    with torch.no_grad():
        quiet = made.model(input_ids=ids).logits
        made.model.train()
        assert torch.equal(made.model(input_ids=ids).logits, quiet)


class TestUnderAHead:
    """A classifier's head is trained with the shared slot, and is no adapter's business otherwise."""

    @pytest.fixture
    def made(self) -> Attached:
        return Attached(base_of(bert()), Lora(rank=2), Lora(rank=1), seed=0)

    def test_the_shared_slot_holds_it_and_the_private_one_does_not(self, made):
        names = {slot: [n for n in schema.names() if "lora_" not in n] for slot, schema in made.schemas.items()}
        head = ["base_model.model.classifier.bias", "base_model.model.classifier.weight"]
        assert names == {SHARED: head, PRIVATE: []}
        assert dict(made.schemas[SHARED].shapes)[head[1]] == (LABELS, 64)
        assert made.config(SHARED)["modules_to_save"] == ["classifier"]
        assert not made.config(PRIVATE)["modules_to_save"]
        assert made.config(SHARED)["task_type"] == made.config(PRIVATE)["task_type"] == "SEQ_CLS"

    def test_it_starts_as_the_base_has_it_and_the_bare_base_keeps_that(self, made):
        inputs = {k: v for k, v in batch("bert").items() if k != "labels"}

        def classify() -> torch.Tensor:
            with torch.no_grad():
                return made.model(**inputs).logits

        with torch.no_grad():
            bare = bert()(**inputs).logits
        assert torch.equal(classify(), bare)
        moved = random(made, SHARED)
        made.write(SHARED, moved)
        trained = classify()
        assert not torch.equal(trained, bare)
        made.activate()
        assert torch.equal(classify(), bare)
        assert np.array_equal(made.read(SHARED), moved)
        made.write(SHARED, 2 * moved)  # also while it is switched off
        assert torch.equal(classify(), bare)
        made.write(SHARED, moved)
        made.activate(SHARED)
        assert torch.equal(classify(), trained)

    def test_it_is_trained_with_the_shared_slot_alone(self, made):
        head = {id(p) for n, p in made.model.named_parameters() if n.startswith("classifier.")}
        assert head < {id(p) for p in made.parameters(SHARED)}
        assert not head & {id(p) for p in made.parameters(PRIVATE)}
        assert not any(p.requires_grad for n, p in made.model.named_parameters() if n.startswith("classifier."))

    def test_peft_opens_adapter_and_head_together(self, made, tmp_path):
        moved = made.initial[SHARED] + random(made, SHARED)
        made.write(SHARED, moved)
        made.adapter(SHARED, moved).save(tmp_path)
        inputs = {k: v for k, v in batch("bert").items() if k != "labels"}
        with torch.no_grad():
            opened = PeftModel.from_pretrained(bert(), tmp_path).eval()(**inputs).logits
            torch.testing.assert_close(opened, made.model(**inputs).logits, atol=1e-6, rtol=0)
