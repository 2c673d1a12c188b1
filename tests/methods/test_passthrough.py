"""``peft:NAME``, over every type that the installed peft has: it federates, or it is refused with the reason."""

from __future__ import annotations

import contextlib
import copy
import io
import pickle

import pytest
import torch
from peft import PeftModel, PeftType

from fedpeft.base import load_base
from fedpeft.base.quantize import quantize
from fedpeft.errors import ScenarioError
from fedpeft.methods import Attached, parse_method
from fedpeft.methods.attached import SHARED
from fedpeft.methods.measure import classify
from fedpeft.methods.method import Algebra
from fedpeft.methods.passthrough import ALGEBRAS, REFUSED, known_types, passthrough
from tests.methods import tiny
from tests.methods.test_peft_methods import attach, logits, moved, train

SETTINGS = {
    "ADAPTION_PROMPT": {"adapter_len": 4, "adapter_layers": 2},
    "C3A": {"block_size": 16},
    "ROAD": {"group_size": 16},
    "SHIRA": {"r": 4},
    "TRAINABLE_TOKENS": {"token_indices": [3, 4, 5]},
    "VBLORA": {"vector_length": 32, "num_vectors": 16, "r": 4},
    "WAVEFT": {"n_frequency": 64},
}
"""What peft's own defaults are too large for, or cannot know."""

MISSING = {"ADAMSS"}
"""Types that need a library which fedpeft does not."""

NOT_SILENT = {"VBLORA": 0.05, "UNILORA": 0.01}
"""Types whose start is not the base: both factors come out of one random bank."""

WORKING = sorted(set(known_types()) - set(REFUSED) - MISSING)
BOTH = pytest.mark.parametrize("kind", tiny.KINDS)


def method_of(peft_type: str):
    return parse_method({"name": f"peft:{peft_type.lower()}", **SETTINGS.get(peft_type, {})})


def fits(peft_type: str, kind: str) -> bool:
    return {"llama": "causal", "bert": "classification"}[kind] in method_of(peft_type).tasks


def quiet(function, *arguments, **named):
    """Some types draw progress bars."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        return function(*arguments, **named)


def test_every_type_of_peft_works_or_is_refused_with_a_reason(capsys):
    assert set(known_types()) == {t.name for t in PeftType}
    assert set(REFUSED) | MISSING <= set(known_types())
    assert len(WORKING) == 34
    both = [t for t in WORKING if fits(t, "bert")]
    with capsys.disabled():
        print(f"\npeft: {len(known_types())} types, {len(WORKING)} work on Llama, {len(both)} on BERT too")


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("peft_type", WORKING)
def test_a_type_trains_and_leaves_the_base(peft_type, kind, dtype):
    method = method_of(peft_type)
    model = getattr(tiny, kind)(dtype=dtype)
    bare, own = logits(model, kind), dict(model.named_parameters())
    before = {name: (p, p.detach().clone()) for name, p in own.items()}
    try:
        made = quiet(Attached, tiny.base_of(model), method, None, 0)
    except ScenarioError as refused:
        text = str(refused)
        assert not fits(peft_type, kind) or (peft_type == "ADAPTION_PROMPT" and dtype == torch.bfloat16), text
        assert text.startswith(("method.name: ", "method: "))
        return
    # float32: rounding of types that undo at the start what they have done; bfloat16 rounds at 2^-8.
    near = NOT_SILENT.get(peft_type, 1e-6) + (0.02 if dtype == torch.bfloat16 else 0.0)
    assert torch.allclose(logits(model, kind), bare, atol=near, rtol=0)
    assert {p.dtype for p in made.parameters(SHARED)} == {torch.float32}
    assert not any(SHARED in name for name in made.schemas[SHARED].names())
    losses = quiet(train, made, kind, rate=1e-2)
    assert losses[-1] < losses[0]
    trained, vector = logits(model, kind), made.read(SHARED)
    if kind == "llama":  # the trainer runs the decoder alone, on batches of any shape
        ids = tiny.batch(kind)["input_ids"]
        with torch.no_grad():
            assert torch.equal(model.lm_head(model.model(input_ids=ids)[0]), trained)
            assert torch.isfinite(model.model(input_ids=ids[:1, :5])[0]).all()
    assert (vector != made.initial[SHARED]).any()
    made.activate()
    assert torch.equal(logits(model, kind), bare)
    made.activate(SHARED)
    assert torch.equal(logits(model, kind), trained)
    assert all(torch.equal(p, was) for name, (p, was) in before.items() if not name.startswith("classifier"))
    for seed in (0, 5):
        other = quiet(attach, kind, method, seed=seed, dtype=dtype)
        alike = other.schemas[SHARED].digest == made.schemas[SHARED].digest
        assert alike or seed
        if alike:  # what is not sent is the same on every device, or the digest says so
            other.write(SHARED, vector)
            assert torch.equal(logits(other.model, kind), trained)


@BOTH
@pytest.mark.parametrize("peft_type", WORKING)
def test_the_declared_algebra_is_what_is_measured(peft_type, kind):
    if not fits(peft_type, kind):
        pytest.skip("another task")
    method = method_of(peft_type)
    made = quiet(attach, kind, method)
    if peft_type == "ADAPTION_PROMPT":  # it changes attention as a whole, and no place shows it
        assert method.algebra is Algebra.UNKNOWN
    else:
        assert method.algebra in classify(made, SHARED)


@pytest.mark.parametrize("peft_type", WORKING)
def test_a_mergeable_type_folds_into_the_weights(peft_type):
    method = method_of(peft_type)
    made = quiet(attach, "llama", method)
    made.write(SHARED, moved(made, deviation=0.02))
    expected, merged = logits(made.model, "llama"), None
    tuner = copy.deepcopy(made.model.__dict__["_fedpeft_peft_model"])
    with contextlib.suppress(NotImplementedError, AttributeError, ValueError):
        merged = quiet(tuner.merge_and_unload)
    assert (merged is not None) == method.mergeable
    if merged is not None:
        torch.testing.assert_close(logits(merged, "llama"), expected, atol=1e-4, rtol=1e-4)


@BOTH
@pytest.mark.parametrize("peft_type", WORKING)
def test_peft_opens_what_is_saved(peft_type, kind, tmp_path):
    if not fits(peft_type, kind):
        pytest.skip("another task")
    made = quiet(attach, kind, method_of(peft_type))
    made.write(SHARED, moved(made, deviation=0.05))
    made.adapter(SHARED, made.read(SHARED)).save(tmp_path / "adapter")
    opened = quiet(PeftModel.from_pretrained, getattr(tiny, kind)(), str(tmp_path / "adapter"))
    torch.testing.assert_close(logits(opened.eval(), kind), logits(made.model, kind), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("peft_type", sorted({*REFUSED, *MISSING}))
def test_a_refused_type_says_why(peft_type):
    with pytest.raises(ScenarioError) as refused:
        attach("llama", method_of(peft_type))
    reason = REFUSED.get(peft_type, "scikit-learn is required")
    assert reason in str(refused.value)


def test_no_algebra_is_declared_of_a_type_that_peft_lacks_or_twice():
    declared = [t for types in ALGEBRAS.values() for t in types.split()]
    assert len(declared) == len(set(declared))
    assert set(declared) <= set(WORKING)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "peft:hrr"}, r"method.name: found 'peft:hrr', expected a method of peft 0\..*; did you mean 'HRA'\?"),
        ({"name": "peft:"}, "method.name: found 'peft:', expected a method of peft .*known: ADALORA, "),
        ({"name": "hra"}, r"method.name: found 'hra', expected a known method; did you mean 'peft:hra'\?"),
        ({"name": "peft:hra", "rnk": 4}, "method.rnk: found 'rnk', expected a field of HRAConfig"),
        ({"name": "peft:hra", "rr": 4}, r"method.rr: found 'rr', expected a field of HRAConfig; did you mean 'r'\?"),
        ({"name": "peft:lora", "bias": "all"}, "method.bias: found 'all', expected not to be set; biases of the base"),
        ({"name": "peft:lora", "task_type": "SEQ_CLS"}, "method.task_type: found 'SEQ_CLS', expected not to be set"),
        ({"name": "peft:lora", "modules_to_save": ["x"]}, "method.modules_to_save: .*a task's head is trained without"),
        ({"name": "peft:lora", "inference_mode": True}, "method.inference_mode: found 'inference_mode', expected a fi"),
        ({"name": "peft:lora", "lora_dropout": 0.1}, "method.lora_dropout: found 0.1, expected 0; chance in training"),
        ({"name": "peft:lora", "target_modules": ["q"]}, "method.target_modules: found 'q', expected names of linear"),
        ({"name": "peft:lora", "r": 0}, "method: found .*, expected what peft's LORA can do here; .*positive"),
        ({"name": "peft:lora", "r": "x"}, "method: found .*, expected what peft's LORA can do here; "),
        ({"name": "peft:c3a", "block_size": 7}, "method: found .*, expected what peft's C3A can do here; .*factor"),
        ({"name": "peft:lora", "init_lora_weights": "pissa"}, "a start that leaves the base alone; .*q_proj.weight"),
        ({"name": "peft:lora", "init_lora_weights": "olora"}, "a start that leaves the base alone; .*q_proj.weight"),
        ({"name": "peft:ln_tuning", "target_modules": ["x"]}, "method: found .*, expected what peft's LN_TUN"),
        ({"name": "peft:adaption_prompt"}, "method.name: .*, expected a method for classification models"),
    ],
)
def test_a_mistake_is_named(settings, message):
    kind = "bert" if "adaption" in settings["name"] else "llama"
    with pytest.raises(ScenarioError, match=message):
        quiet(attach, kind, parse_method(settings))


def test_names_are_read_in_any_case_and_settings_reach_peft():
    method = parse_method(
        {"name": "peft:Lora", "r": 3, "lora_alpha": 5, "use_rslora": True, "target_modules": ["q_proj"]}
    )
    assert (method.name, method.algebra) == ("peft:lora", Algebra.MULTILINEAR)
    assert type(method) is passthrough("peft:LORA")
    saved = attach("llama", method).config(SHARED)
    assert (saved["r"], saved["lora_alpha"], saved["use_rslora"], saved["target_modules"]) == (3, 5, True, ["q_proj"])
    assert method.model_dump() == {"r": 3, "lora_alpha": 5, "use_rslora": True, "target_modules": ["q_proj"]}


def test_a_regular_expression_is_pefts_to_read():
    made = attach("llama", parse_method({"name": "peft:lora", "target_modules": r".*\.0\.self_attn\.[qk]_proj"}))
    assert {n.rsplit(".", 3)[-3] for n in made.schemas[SHARED].names()} == {"q_proj", "k_proj"}
    assert all(".0." in n for n in made.schemas[SHARED].names())


def test_a_method_made_on_demand_can_be_pickled():
    method = parse_method({"name": "peft:miss", "r": 4})
    again = pickle.loads(pickle.dumps(method))
    assert again == method
    assert type(again) is type(method)


@pytest.mark.parametrize(("precision", "count"), [("nf4", 21), ("int8", 24)])
def test_over_a_quantized_base_a_type_learns_or_says_that_it_cannot(precision, count):
    works = []
    for peft_type in WORKING:
        model = tiny.llama()
        quantize(model, precision)
        model.requires_grad_(False).eval()
        bare = logits(model, "llama")
        try:
            made = quiet(Attached, tiny.base_of(model), method_of(peft_type), None, 0)
        except ScenarioError as refused:
            assert any(reason in str(refused) for reason in ("can do here", "gets no gradient", "misreads"))
            continue
        losses = quiet(train, made, "llama", rate=1e-2)
        assert losses[-1] < losses[0]
        made.activate()
        assert torch.equal(logits(model, "llama"), bare)
        works.append(peft_type)
    assert {"LORA", "IA3", "VERA"} <= set(works)
    assert len(works) == count


def test_every_type_attaches_to_the_builtin_base_whose_embedding_is_its_output():
    for peft_type in WORKING:
        base = load_base("keyboard", "float32")
        bare = base.model(input_ids=torch.arange(9)[None]).logits
        made = quiet(Attached, base, method_of(peft_type), None, 0)
        found = base.model(input_ids=torch.arange(9)[None]).logits
        assert torch.allclose(found, bare, atol=100 * NOT_SILENT.get(peft_type, 1e-6), rtol=0), peft_type
        made.activate()
        assert torch.equal(base.model(input_ids=torch.arange(9)[None]).logits, bare), peft_type
