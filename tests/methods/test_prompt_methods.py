"""Prompts and prefixes: what they train, that they act like peft's, and that nobody else notices them.

Sizes are written out from the papers' equations, not from the code. peft is the second implementation: files in both
directions, gradients, generation, and the small networks that prompts are computed from.
"""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import peft
import pytest
import torch
from peft import PeftModel
from transformers import AutoTokenizer, DynamicCache, RobertaConfig, RobertaForSequenceClassification

from fedpeft.adapters import Adapter
from fedpeft.base import load_base
from fedpeft.base.quantize import quantize
from fedpeft.errors import ScenarioError
from fedpeft.methods import Attached, Method, parse_method
from fedpeft.methods.attached import PRIVATE, SHARED
from fedpeft.methods.lora import Lora
from fedpeft.methods.lora_prefix import LoraPrefix
from fedpeft.methods.lora_prompt import LoraPrompt
from fedpeft.methods.measure import classify
from fedpeft.methods.p_tuning import PTuning
from fedpeft.methods.p_tuning_v2 import PTuningV2
from fedpeft.methods.pfeiffer import Pfeiffer
from fedpeft.methods.prefix_tuning import PrefixTuning
from fedpeft.methods.prompt_adapter import PromptAdapter
from fedpeft.methods.prompt_tuning import PromptOnTop, PromptTuning
from fedpeft.methods.prompts import VECTORS
from fedpeft.methods.reparameterised import Lstm, Mlp, Projection
from tests.methods.tiny import HIDDEN, KINDS, LABELS, LAYERS, VOCABULARY, base_of, batch, bert, llama

K, D, W = 5, HIDDEN, 12
KEYS = {"llama": 32, "bert": 64}
# (in + out) of the linear modules of one layer, summed.
SIDES = {"llama": 2 * 128 + 2 * 96 + 3 * 192, "bert": 4 * 128 + 2 * 192}
LSTM = 2 * (4 * W * D + 4 * W * W + 8 * W) + 2 * (4 * W * 2 * W + 4 * W * W + 8 * W)
PREFIX = {kind: K * LAYERS * 2 * v for kind, v in KEYS.items()}

CASES: dict[str, tuple[Method, object]] = {
    "prompt_tuning": (PromptTuning(length=K), lambda k: K * D),
    "p_tuning": (PTuning(length=K, width=W), lambda k: K * D + D * W + W + W * W + W + W * D + D),
    "p_tuning by lstm": (
        PTuning(length=K, width=W, encoder="lstm"),
        lambda k: K * D + LSTM + (2 * W) ** 2 + 2 * W + 2 * W * D + D,
    ),
    "prefix_tuning": (
        PrefixTuning(length=K, projection=W),
        lambda k: K * KEYS[k] + KEYS[k] * W + W + (W + 1) * LAYERS * 2 * KEYS[k],
    ),
    "prefix_tuning, plain": (PrefixTuning(length=K, projection=None), PREFIX.__getitem__),
    "p_tuning_v2": (PTuningV2(length=K), PREFIX.__getitem__),
    "lora_prompt": (
        LoraPrompt(lora=Lora(rank=3), prompt=PromptTuning(length=K)),
        lambda k: LAYERS * 3 * SIDES[k] + K * D,
    ),
    "lora_prefix": (
        LoraPrefix(lora=Lora(rank=3), prefix=PTuningV2(length=K)),
        lambda k: LAYERS * 3 * SIDES[k] + PREFIX[k],
    ),
    "prompt_adapter": (
        PromptAdapter(adapter=Pfeiffer(size=8), prompt=PromptTuning(length=K)),
        lambda k: LAYERS * (2 * D * 8 + 8 + D) + K * D,
    ),
}
METHODS = pytest.mark.parametrize(("method", "size"), CASES.values(), ids=CASES)
ON = pytest.mark.parametrize("kind", KINDS)
PLAIN = pytest.mark.parametrize(
    "method", [m for m, _ in CASES.values() if m.name in ("prompt_tuning", "p_tuning_v2")], ids=lambda m: m.name
)
COMPUTED = pytest.mark.parametrize(
    "method",
    [CASES[n][0] for n in ("p_tuning", "p_tuning by lstm", "prefix_tuning")],
    ids=["mlp", "lstm", "projection"],
)


def made(kind: str, dtype: torch.dtype = torch.float32):
    return {"llama": llama, "bert": bert}[kind](dtype=dtype)


def attached(
    kind: str,
    method: Method,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    private: Method | None = None,
    noise: float = 0.3,
) -> Attached:
    """Attach a method whose parameters are no longer the start's."""
    own = Attached(base_of(made(kind, dtype)), method, private, seed)
    for number, slot in enumerate(own.slots):
        start = own.initial[slot]
        own.write(slot, start + np.random.default_rng(number).normal(0.0, noise, len(start)).astype(np.float32))
    own.activate(*own.slots)
    return own


def padded(kind: str) -> dict[str, torch.Tensor]:
    found = batch(kind)
    found["attention_mask"][0, 8:] = 0
    found.pop("labels")
    return found


def logits(model, kind: str, **inputs: torch.Tensor) -> torch.Tensor:
    """Return the logits of the text's own positions."""
    inputs = inputs or padded(kind)
    with torch.no_grad():
        found = model(**inputs).logits
    return found[:, -inputs["input_ids"].shape[1] :] if found.dim() == 3 else found


def opened_by_peft(kind: str, adapter: Adapter, folder) -> PeftModel:
    adapter.save(folder)
    return PeftModel.from_pretrained(made(kind), folder).eval()


# What every method of ours promises.


@ON
@METHODS
def test_it_trains_as_many_numbers_as_its_equation_says(method, size, kind):
    own = attached(kind, method)
    assert own.schemas[SHARED].size == size(kind) + (LABELS * (D + 1) if kind == "bert" else 0)
    assert {p.dtype for p in own.parameters(SHARED)} == {torch.float32}


@ON
@METHODS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_it_changes_the_answers_and_without_it_the_base_is_back_to_the_bit(method, size, kind, dtype):
    bare = logits(made(kind, dtype), kind)
    own = attached(kind, method, dtype=dtype, private=method.private(4))
    speaking = logits(own.model, kind)
    assert speaking.shape == bare.shape
    assert torch.isfinite(speaking).all()
    assert (speaking - bare).abs().max() > 1e-3
    own.activate()
    assert torch.equal(logits(own.model, kind), bare)


@ON
@METHODS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_a_few_steps_lower_the_loss_and_leave_the_base_as_it_was(method, size, kind, dtype):
    base = made(kind, dtype)
    weights = [p for n, p in base.named_parameters() if not n.startswith("classifier")]
    before = sha256(b"".join(p.float().numpy().tobytes() for p in weights)).hexdigest()
    own = Attached(base_of(base), method, method.private(4), seed=0)
    for slot in own.slots:
        own.activate(*own.slots[: own.slots.index(slot) + 1])
        optimizer = torch.optim.AdamW(own.parameters(slot), lr=3e-3)
        losses = []
        for _ in range(6):
            loss = own.model(**batch(kind)).loss
            losses.append(float(loss.detach()))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        assert losses[-1] < losses[0]
        assert not np.array_equal(own.read(slot), own.initial[slot])
    assert sha256(b"".join(p.float().numpy().tobytes() for p in weights)).hexdigest() == before


@ON
@pytest.mark.parametrize("precision", ["nf4", "int8"])
@METHODS
def test_it_works_over_a_quantized_base(method, size, kind, precision):
    model = made(kind)
    base = base_of(model)
    quantize(model, precision, keep=base.head)
    model.eval()  # the new layers too
    bare = logits(model, kind)
    own = Attached(base, method, None, seed=0)
    assert (logits(own.model, kind) - bare).abs().max() > 1e-3
    parameters = own.parameters(SHARED)
    own.model(**batch(kind)).loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in parameters)
    own.activate()
    assert torch.equal(logits(own.model, kind), bare)


@ON
@METHODS
def test_every_number_gets_a_gradient(method, size, kind):
    own = attached(kind, method)
    parameters = own.parameters(SHARED)
    own.model(**batch(kind)).loss.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in parameters)


@ON
@METHODS
def test_what_is_read_can_be_written_saved_and_loaded(method, size, kind, tmp_path):
    own, other = attached(kind, method), attached(kind, method, noise=0.0)
    own.adapter(SHARED, own.read(SHARED)).save(tmp_path / "adapter")
    loaded = Adapter.load(tmp_path / "adapter", own.base.fingerprint)
    assert loaded.schema == own.schemas[SHARED]
    other.write(SHARED, loaded.vector)
    assert np.array_equal(other.read(SHARED), own.read(SHARED))
    assert torch.equal(logits(other.model, kind), logits(own.model, kind))


@METHODS
def test_one_seed_makes_one_start(method, size):
    one, same, other = (attached("llama", method, seed, noise=0.0) for seed in (5, 5, 6))
    assert np.array_equal(one.initial[SHARED], same.initial[SHARED])
    assert not np.array_equal(one.initial[SHARED], other.initial[SHARED])
    assert one.schemas == same.schemas == other.schemas


@ON
@METHODS
def test_the_mean_means_what_the_method_declares(method, size, kind):
    assert method.averaging in classify(attached(kind, method, noise=0.0), SHARED)


@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
@METHODS
def test_the_backbone_alone_gives_one_state_per_token(method, size, mode):
    """What the trainer does: run the decoder without a cache, apply the head to some positions."""
    own = attached("llama", method)
    own.model.train(mode)
    ids = batch("llama")["input_ids"]
    decoder = own.model.model(input_ids=ids, use_cache=False)
    assert decoder.last_hidden_state.shape == (*ids.shape, D)
    assert decoder.past_key_values is None
    assert torch.equal(own.model.lm_head(decoder.last_hidden_state), own.model(input_ids=ids).logits)


# peft, in both directions.


@ON
@pytest.mark.parametrize("name", ["prompt_tuning", "prefix_tuning, plain", "p_tuning_v2"])
def test_peft_opens_ours_with_equal_answers(kind, name, tmp_path):
    own = attached(kind, CASES[name][0])
    theirs = opened_by_peft(kind, own.adapter(SHARED, own.read(SHARED)), tmp_path / "adapter")
    assert torch.equal(logits(theirs, kind), logits(own.model, kind))


@ON
@COMPUTED
def test_peft_opens_what_a_computed_prompt_amounts_to_with_equal_answers(kind, method, tmp_path):
    own = attached(kind, method)
    theirs = opened_by_peft(kind, own.folded(SHARED), tmp_path / "adapter")
    # An LSTM's last bit is another one when gradients are kept; from the folded values on all is equal.
    torch.testing.assert_close(logits(theirs, kind), logits(own.model, kind), rtol=0, atol=5e-7)
    assert own.folded(SHARED).config["task_type"] == {"llama": "CAUSAL_LM", "bert": "SEQ_CLS"}[kind]


@ON
@PLAIN
def test_ours_opens_what_peft_saved_with_equal_answers(kind, method, tmp_path):
    task = {"llama": "CAUSAL_LM", "bert": "SEQ_CLS"}[kind]
    config = {"prompt_tuning": peft.PromptTuningConfig, "p_tuning_v2": peft.PrefixTuningConfig}[method.name]
    torch.manual_seed(3)
    theirs = peft.get_peft_model(made(kind), config(task_type=task, num_virtual_tokens=K)).eval()
    theirs.save_pretrained(tmp_path)
    own = attached(kind, method)
    loaded = Adapter.load(tmp_path, own.base.fingerprint)
    assert loaded.schema == own.schemas[SHARED]
    own.write(SHARED, loaded.vector)
    assert torch.equal(logits(own.model, kind), logits(theirs, kind))


@ON
@PLAIN
def test_gradients_are_pefts(kind, method):
    own = attached(kind, method)
    for module in own.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    task, config = {"llama": "CAUSAL_LM", "bert": "SEQ_CLS"}[kind], own.adapter(SHARED, own.read(SHARED)).config
    known = {"PROMPT_TUNING": peft.PromptTuningConfig, "PREFIX_TUNING": peft.PrefixTuningConfig}[config["peft_type"]]
    theirs = peft.get_peft_model(made(kind), known(task_type=task, num_virtual_tokens=K)).eval()
    vectors = theirs.prompt_encoder["default"].embedding.weight
    (mine,) = own.parameters(SHARED, lambda name: name == VECTORS)
    vectors.data.copy_(mine.data)
    inputs = batch(kind)
    if kind == "llama":
        inputs["labels"][:, 0] = -100  # peft predicts the first token from the prompt, we do not
    else:
        theirs.base_model.classifier.modules_to_save["default"].load_state_dict(own.model.classifier.state_dict())
    own.model(**inputs).loss.backward()
    theirs(**inputs).loss.backward()
    torch.testing.assert_close(mine.grad, vectors.grad, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Mlp(K, D, W), lambda: peft.PromptEncoder(peft.PromptEncoderConfig(**SHAPE))),
        (
            Lstm(K, D, W),
            lambda: peft.PromptEncoder(peft.PromptEncoderConfig(encoder_reparameterization_type="LSTM", **SHAPE)),
        ),
        (
            Projection(K, D, W, 2 * LAYERS * D),
            lambda: peft.PrefixEncoder(peft.PrefixTuningConfig(prefix_projection=True, **SHAPE)),
        ),
    ],
    ids=["mlp", "lstm", "projection"],
)
def test_a_computed_prompt_is_what_pefts_module_computes(ours, theirs):
    module = theirs()
    module.load_state_dict(ours.state_dict())  # strict: the names are peft's too
    torch.testing.assert_close(module(torch.arange(K)[None])[0], ours())


SHAPE = {
    "num_virtual_tokens": K,
    "token_dim": D,
    "num_transformer_submodules": 1,
    "num_layers": LAYERS,
    "num_attention_heads": 4,
    "encoder_hidden_size": W,
}


def roberta() -> RobertaForSequenceClassification:
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=VOCABULARY,
        hidden_size=D,
        intermediate_size=2 * D,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        max_position_embeddings=40,
        num_labels=LABELS,
        pad_token_id=1,
        attn_implementation="eager",
    )
    return RobertaForSequenceClassification(config).eval().requires_grad_(False)


@PLAIN
def test_an_encoder_whose_head_takes_the_first_position_answers_as_under_peft(method, tmp_path):
    own = Attached(base_of(roberta()), method, None, seed=1)
    own.adapter(SHARED, own.read(SHARED)).save(tmp_path / "adapter")
    theirs = PeftModel.from_pretrained(roberta(), tmp_path / "adapter").eval()
    assert torch.equal(logits(theirs, "bert"), logits(own.model, "bert"))


# Generation.


def generated(model, **options) -> torch.Tensor:
    ids = batch("llama")["input_ids"]
    options.setdefault("attention_mask", torch.ones_like(ids))
    # No end of text: every sequence shall have all steps.
    return model.generate(input_ids=ids, max_new_tokens=10, min_new_tokens=10, do_sample=False, **options)


@METHODS
def test_greedy_generation_is_the_same_with_and_without_a_cache(method, size):
    own = attached("llama", method, private=method.private(4))
    cached = generated(own.model)
    assert torch.equal(cached, generated(own.model, use_cache=False))
    own.activate()
    assert not torch.equal(cached, generated(own.model))


@METHODS
def test_beams_and_padded_texts_generate_the_same_with_and_without_a_cache(method, size):
    own = attached("llama", method)
    mask = torch.ones_like(batch("llama")["input_ids"])
    mask[0, :4] = 0
    cached = generated(own.model, attention_mask=mask)
    assert torch.equal(cached, generated(own.model, attention_mask=mask, use_cache=False))
    alone = own.model.generate(
        input_ids=batch("llama")["input_ids"][:1, 4:], max_new_tokens=10, min_new_tokens=10, do_sample=False
    )
    assert torch.equal(cached[:1, 4:], alone)
    beams = generated(own.model, attention_mask=mask, num_beams=3)
    assert torch.equal(beams, generated(own.model, attention_mask=mask, num_beams=3, use_cache=False))


@PLAIN
def test_it_generates_what_peft_generates(method, tmp_path):
    own = attached("llama", method)
    theirs = opened_by_peft("llama", own.adapter(SHARED, own.read(SHARED)), tmp_path / "adapter")
    assert torch.equal(generated(own.model), generated(theirs))


@METHODS
@pytest.mark.parametrize("masked", [True, False], ids=["mask", "no mask"])
def test_a_text_read_in_pieces_through_a_cache_is_the_text_read_at_once(method, size, masked):
    own = attached("llama", method, private=method.private(4))
    ids = batch("llama")["input_ids"]
    whole = logits(own.model, "llama", input_ids=ids)
    for given in (None, DynamicCache(), DynamicCache(config=own.model.config)):
        cache, parts, read = given, [], 0
        for piece in ids.split([5, 1, 4, 2], dim=1):
            read += piece.shape[1]
            mask = {"attention_mask": torch.ones(len(ids), read, dtype=torch.long)} if masked else {}
            with torch.no_grad():
                out = own.model(input_ids=piece, past_key_values=cache, use_cache=True, **mask)
            cache = out.past_key_values
            parts.append(out.logits)
        assert torch.allclose(torch.cat(parts, dim=1), whole, atol=1e-5)


@PLAIN
def test_an_emptied_cache_is_a_new_one(method):
    own = attached("llama", method)
    ids, cache = batch("llama")["input_ids"], DynamicCache()
    with torch.no_grad():
        first = own.model(input_ids=ids, past_key_values=cache).logits
        cache.crop(-cache.get_seq_length())
        again = own.model(input_ids=ids, past_key_values=cache).logits
    assert torch.equal(first, again)


# How it is called.


@ON
@METHODS
def test_it_does_not_matter_how_the_text_is_handed_over(method, size, kind):
    own = attached(kind, method)
    given = padded(kind)
    expected = logits(own.model, kind)
    vectors = own.model.get_input_embeddings()(given["input_ids"])
    with torch.no_grad():
        by_vectors = own.model(inputs_embeds=vectors, attention_mask=given["attention_mask"]).logits
        as_tuple = own.model(**given, return_dict=False)[0]
        positions = torch.arange(vectors.shape[1])[None]
        by_position = own.model(**given, position_ids=positions).logits
        states = own.model(**given, output_hidden_states=True).hidden_states
    for found in (by_vectors, as_tuple, by_position):
        assert torch.equal(found, expected)
    if kind == "llama":
        assert {s.shape[1] for s in states} == {vectors.shape[1]}
    else:
        types = torch.zeros_like(given["input_ids"])
        assert torch.equal(logits(own.model, kind, **given, token_type_ids=types), expected)


@ON
@METHODS
def test_a_full_mask_is_no_mask(method, size, kind):
    own = attached(kind, method)
    ids = batch(kind)["input_ids"]
    without = logits(own.model, kind, input_ids=ids)
    torch.testing.assert_close(without, logits(own.model, kind, input_ids=ids, attention_mask=torch.ones_like(ids)))


@ON
def test_prompts_train_alike_when_activations_are_computed_again(kind):
    gradients = []
    for again in (False, True):
        own = attached(kind, PromptTuning(length=K))
        for module in own.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        if again:
            own.model.gradient_checkpointing_enable({"use_reentrant": False})
        own.model.train()
        parameters = own.parameters(SHARED)
        own.model(**batch(kind)).loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in parameters]))
    torch.testing.assert_close(*gradients)


# What a set is.


def permuted(own: Attached, order: np.ndarray) -> np.ndarray:
    tensors = dict(own.schemas[SHARED].unflatten(own.read(SHARED)))
    tensors[VECTORS] = tensors[VECTORS][order]
    return own.schemas[SHARED].flatten(tensors)


@ON
def test_the_order_of_a_prefix_says_nothing(kind):
    own = attached(kind, PTuningV2(length=K))
    expected, before = logits(own.model, kind), own.read(SHARED)
    other = permuted(own, np.roll(np.arange(K), 2))
    assert not np.array_equal(other, before)
    own.write(SHARED, other)
    torch.testing.assert_close(logits(own.model, kind), expected)


def test_the_mean_of_sets_in_many_orders_keeps_little_of_them():
    """Of n orders of k independent vectors the mean has sqrt(1/n + (1 - 1/n)/k) of their norm: 39 % for 16 and 10."""
    own = Attached(base_of(llama()), PromptTuning(length=10), None, seed=0)
    rng = np.random.default_rng(0)
    orders = [permuted(own, rng.permutation(10)) for _ in range(16)]
    kept = np.linalg.norm(np.mean(orders, axis=0)) / np.linalg.norm(own.read(SHARED))
    assert kept == pytest.approx((1 / 16 + (15 / 16) / 10) ** 0.5, abs=0.02)
    assert kept == pytest.approx(0.39, abs=0.02)


# Starts from words.


@pytest.fixture(scope="module")
def keyboard() -> dict[str, torch.Tensor]:
    base = load_base("keyboard", "float32")
    words = base.tokenizer("see you at the station", add_special_tokens=False, return_tensors="pt")["input_ids"]
    ids = torch.tensor([[1, 3, *range(400, 430), 2, 4, 600, 2]])
    with torch.no_grad():
        after = base.model(torch.cat([words, ids], dim=1)).logits[:, words.shape[1] :]
    return {"words": words, "ids": ids, "bare": base.model(ids).logits, "after": after}


@pytest.mark.parametrize("kind", [PromptTuning, PTuningV2], ids=lambda m: m.name)
def test_a_start_from_a_text_is_that_text_before_every_other(kind, keyboard):
    method = kind(length=keyboard["words"].shape[1], init_text="see you at the station")
    own = Attached(load_base("keyboard", "float32"), method, None, seed=0)
    found = logits(own.model, "llama", input_ids=keyboard["ids"])
    torch.testing.assert_close(found, keyboard["after"], atol=1e-4, rtol=1e-4)
    assert (found - keyboard["bare"]).abs().max() > 0.1
    assert np.array_equal(own.initial[SHARED], Attached(load_base("keyboard", "float32"), method, None, 7).read(SHARED))


@pytest.mark.parametrize("kind", [PromptTuning, PTuningV2], ids=lambda m: m.name)
@pytest.mark.parametrize("length", [2, 25])
def test_a_text_is_cut_or_repeated_to_the_length(kind, length):
    own = Attached(load_base("keyboard"), kind(length=length, init_text="see you at the station"), None, seed=0)
    assert own.schemas[SHARED].shapes[0][1][0] == length


def test_a_prompts_random_start_has_the_deviation_of_the_bases_embeddings():
    base = load_base("keyboard", "float32")
    expected = float(base.model.get_input_embeddings().weight.std())
    own = Attached(base, PromptTuning(length=64), None, seed=0)
    assert own.read(SHARED).std() == pytest.approx(expected, rel=0.02)


# Several at once.


@ON
def test_a_private_prompt_follows_the_shared_one(kind):
    shared = PromptTuning(length=K)
    own = attached(kind, shared, private=shared.private(3))
    both = logits(own.model, kind)
    one = attached(kind, PromptTuning(length=K + 3))
    tensors = [own.schemas[slot].unflatten(own.read(slot)) for slot in own.slots]
    whole = dict(tensors[0]) | {VECTORS: np.concatenate([t[VECTORS] for t in tensors])}
    one.write(SHARED, one.schemas[SHARED].flatten(whole))
    torch.testing.assert_close(both, logits(one.model, kind))


@ON
def test_no_share_of_a_private_prompt_is_no_private_prompt(kind):
    shared = PromptTuning(length=K)
    own = attached(kind, shared, private=shared.private(3))
    both = logits(own.model, kind)
    own.activate(SHARED)
    alone = logits(own.model, kind)
    start, trained = own.initial[PRIVATE], own.read(PRIVATE)
    own.activate(SHARED, PRIVATE)
    own.write(PRIVATE, own.share(PRIVATE, start, trained, 0.0))
    assert torch.equal(logits(own.model, kind), alone)
    own.write(PRIVATE, own.share(PRIVATE, start, trained, 1.0))
    assert torch.equal(logits(own.model, kind), both)
    assert isinstance(own.methods[PRIVATE], PromptOnTop)
    assert own.methods[PRIVATE].private(2) is None


@ON
def test_two_prefixes_stand_beside_each_other(kind):
    own = attached(kind, PTuningV2(length=K), private=PTuningV2(length=3))
    one = attached(kind, PTuningV2(length=K + 3))
    tensors = [own.schemas[slot].unflatten(own.read(slot)) for slot in own.slots]
    heads = {n: t for n, t in tensors[0].items() if n != VECTORS}
    rows = np.concatenate([t.get(VECTORS, np.zeros((0, 0))) for t in tensors])
    one.write(SHARED, one.schemas[SHARED].flatten({**heads, VECTORS: rows}))
    torch.testing.assert_close(logits(own.model, kind), logits(one.model, kind))


@ON
def test_a_prompt_and_a_prefix_do_not_mind_who_came_first(kind):
    answers = []
    for order in ((PromptTuning(length=K), PTuningV2(length=3)), (PTuningV2(length=3), PromptTuning(length=K))):
        own = attached(kind, order[0], private=order[1])
        for slot, method in own.methods.items():
            vector = own.initial[slot].copy()
            size = {"prompt_tuning": K * D, "p_tuning_v2": 3 * LAYERS * 2 * KEYS[kind]}[method.name]
            mask = own.schemas[slot].mask(lambda name: name == VECTORS)
            vector[mask] = np.random.default_rng(size).normal(0.0, 1.0, size)
            own.write(slot, vector)
        answers.append(logits(own.model, kind))
        positions = torch.arange(12).expand(4, -1)
        torch.testing.assert_close(logits(own.model, kind, **padded(kind), position_ids=positions), answers[-1])
        if kind == "llama":
            assert torch.equal(generated(own.model), generated(own.model, use_cache=False))
    torch.testing.assert_close(*answers)


@ON
@pytest.mark.parametrize(
    ("hybrid", "part", "name"),
    [
        (CASES["lora_prompt"][0], PromptTuning(length=K), "prompt"),
        (CASES["lora_prefix"][0], PTuningV2(length=K), "prefix"),
        (CASES["prompt_adapter"][0], PromptTuning(length=K), "prompt"),
    ],
    ids=["lora_prompt", "lora_prefix", "prompt_adapter"],
)
def test_a_hybrid_whose_other_part_changes_nothing_is_its_prompt(kind, hybrid, part, name):
    own, alone = Attached(base_of(made(kind)), hybrid, None, 0), Attached(base_of(made(kind)), part, None, 1)
    tensors = alone.schemas[SHARED].unflatten(alone.read(SHARED))
    mask = own.schemas[SHARED].mask(lambda n: n == f"{name}.{VECTORS}")
    vector = own.read(SHARED)
    vector[mask] = tensors[VECTORS].ravel()
    own.write(SHARED, vector)
    torch.testing.assert_close(logits(own.model, kind), logits(alone.model, kind))


@pytest.mark.parametrize("name", ["lora_prompt", "lora_prefix", "prompt_adapter"])
def test_a_hybrids_private_adapter_starts_as_nothing_over_all_of_it(name):
    method = CASES[name][0]
    own = Attached(base_of(llama()), method, method.private(2), seed=0)
    own.activate(SHARED)
    alone = logits(own.model, "llama")
    own.activate(SHARED, PRIVATE)
    torch.testing.assert_close(logits(own.model, "llama"), alone)


def test_a_hybrid_is_written_as_tables_of_its_parts():
    method = parse_method({"name": "lora_prompt", "lora": {"rank": 2}, "prompt": {"length": 3}})
    assert method == LoraPrompt(lora=Lora(rank=2), prompt=PromptTuning(length=3))
    saved = method.saved()["method"]
    assert parse_method(saved) == method


# Mistakes.


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "prompt_tuning", "length": 0}, "method.length: found 0, expected input should be greater than"),
        ({"name": "p_tuning", "encoder": "gru"}, "method.encoder: found 'gru', expected "),
        ({"name": "lora_prompt", "lora": {"rnk": 3}}, "method.lora.rnk: found 'rnk', expected a known field; did you"),
        ({"name": "lora_prefix", "prefix": {"length": -1}}, "method.prefix.length: found -1, expected "),
    ],
)
def test_a_mistake_in_the_table_is_named(settings, message):
    with pytest.raises(ScenarioError) as refused:
        parse_method(settings)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("method", "field", "message"),
    [
        (
            PromptTuning(length=128),
            "method.length",
            "found 128, expected less than 128; bert reads 128 positions in all",
        ),
        (PTuning(length=200), "method.length", "found 200"),
        (PrefixTuning(length=200), "method.length", "found 200"),
        (PTuningV2(length=200), "method.length", "found 200"),
        (PromptTuning(init_text="hello"), "method.init_text", "found 'hello', expected a base with a tokenizer"),
        (LoraPrompt(prompt=PromptTuning(length=200)), "method.prompt.length", "found 200"),
        (LoraPrompt(lora=Lora(targets=["quary"])), "method.lora.targets", "did you mean 'query'?"),
    ],
)
def test_what_the_base_cannot_have_is_refused(method, field, message):
    with pytest.raises(ScenarioError) as refused:
        Attached(base_of(bert()), method, None, seed=0)
    assert refused.value.field == field
    assert message in str(refused.value)


@PLAIN
def test_a_text_that_no_longer_fits_is_refused(method):
    own = attached("bert", method)
    fitting = torch.full((1, 128 - K), 7)
    assert logits(own.model, "bert", input_ids=fitting).shape == (1, LABELS)
    with pytest.raises(ScenarioError, match="at most 4 before a text of 124 tokens; the base has 128 positions"):
        logits(own.model, "bert", input_ids=torch.full((1, 124), 7))


@PLAIN
def test_a_cache_of_fixed_size_is_refused(method):
    own = attached("llama", method)
    with pytest.raises(ScenarioError, match="prompts and prefixes need a cache that grows"):
        generated(own.model, cache_implementation="static")


def test_a_text_of_no_tokens_is_no_start(monkeypatch):
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda _: lambda *_, **__: {"input_ids": []})
    with pytest.raises(ScenarioError, match="a text of at least one token"):
        Attached(base_of(llama()), PromptTuning(init_text=" "), None, seed=0)
