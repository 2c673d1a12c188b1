"""Methods of our own: what each trains, and that it starts as nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import PeftModel

from fedpeft.adapters import Adapter
from fedpeft.adapters.merge import merge
from fedpeft.errors import ScenarioError
from fedpeft.methods.attached import PRIVATE, SHARED
from fedpeft.methods.diff_pruning import DiffPruning
from fedpeft.methods.full import Full
from fedpeft.methods.measure import EXACT, classify, measured_error
from fedpeft.methods.method import Algebra
from tests.methods.modules import (
    MERGED,
    METHODS,
    ON,
    D,
    attached,
    logits,
    made,
    noisy,
    own_placed,
    train,
)
from tests.methods.tiny import LABELS, batch


@ON
@METHODS
def test_it_trains_as_many_numbers_as_its_equation_says(method, size, kind):
    head = LABELS * (D + 1) if kind == "bert" and method.name != "full" else 0
    assert attached(kind, method).schemas[SHARED].size == size(kind) + head


@ON
@METHODS
def test_the_start_changes_nothing_and_without_it_the_base_is_back_to_the_bit(method, size, kind):
    bare = logits(made(kind), kind)
    own = attached(kind, method)
    for slots in ([SHARED], [PRIVATE], [SHARED, PRIVATE]):
        own.activate(*[s for s in slots if s in own.slots])
        assert torch.allclose(logits(own.model, kind), bare, atol=1e-6, rtol=0)
    for slot in own.slots:
        own.write(slot, noisy(own, slot))
    own.activate(*own.slots)
    assert (logits(own.model, kind) - bare).abs().max() > 1e-4
    own.activate()
    assert torch.equal(logits(own.model, kind), bare)


@ON
@METHODS
def test_each_slot_changes_the_answers_and_both_together_do_more(method, size, kind):
    own = attached(kind, method)
    answers = []
    for slots in ([SHARED], [PRIVATE], [SHARED, PRIVATE]):
        if PRIVATE in slots and PRIVATE not in own.slots:
            continue
        for slot in own.slots:
            own.write(slot, noisy(own, slot))
        own.activate(*slots)
        answers.append(logits(own.model, kind))
    assert all((a - b).abs().max() > 1e-4 for i, a in enumerate(answers) for b in answers[:i])


@ON
@METHODS
def test_a_few_steps_lower_the_loss_and_leave_the_base_as_it_was(method, size, kind):
    own = attached(kind, method)
    names = list(dict(made(kind).named_parameters()))
    before = {n: p.detach().clone() for n, p in made(kind).named_parameters()}
    losses = train(own, kind)
    assert losses[-1] < losses[0]
    if PRIVATE in own.slots:
        own.activate(SHARED, PRIVATE)
        assert train(own, kind, PRIVATE)[-1] < losses[-1]
    own.activate()
    now = {n.replace(".base_layer.", "."): p for n, p in own.model.named_parameters()}
    assert all(torch.equal(now[name], before[name]) for name in names)


@ON
@METHODS
def test_what_is_read_can_be_written_and_saved(method, size, kind, tmp_path):
    own, other = attached(kind, method), attached(kind, method)
    own.write(SHARED, noisy(own))
    own.adapter(SHARED, own.read(SHARED)).save(tmp_path / "adapter")
    loaded = Adapter.load(tmp_path / "adapter", own.base.fingerprint)
    assert loaded.schema == own.schemas[SHARED]
    other.write(SHARED, loaded.vector)
    assert np.array_equal(other.read(SHARED), own.read(SHARED))
    assert torch.equal(logits(other.model, kind), logits(own.model, kind))


@METHODS
def test_one_seed_makes_one_start_and_one_context(method, size):
    one, same, other = (attached("llama", method, seed) for seed in (5, 5, 6))
    for slot in one.slots:
        assert one.schemas[slot] == same.schemas[slot]
        assert np.array_equal(one.initial[slot], same.initial[slot])
    drawn = getattr(method, "init", "") == "random" or getattr(method, "mask", "") == "seeded"
    assert (one.schemas[SHARED].context != other.schemas[SHARED].context) == drawn


@ON
@METHODS
def test_over_a_bfloat16_base_the_trainables_are_float32(method, size, kind):
    if isinstance(method, Full):
        with pytest.raises(ScenarioError, match=r"^base\.dtype: found 'bfloat16', expected float32"):
            attached(kind, method, dtype=torch.bfloat16)
        return
    bare = logits(made(kind, torch.bfloat16), kind)
    own = attached(kind, method, dtype=torch.bfloat16)
    assert torch.equal(logits(own.model, kind), bare)
    assert {p.dtype for slot in own.slots for p in own.parameters(slot)} == {torch.float32}
    losses = train(own, kind, steps=8, rate=1e-2)
    assert losses[-1] < losses[0]
    own.activate()
    assert torch.equal(logits(own.model, kind), bare)


@ON
@METHODS
def test_its_algebra_is_what_is_measured(method, size, kind):
    own = attached(kind, method)
    assert method.averaging in classify(own, SHARED)
    error = measured_error(own, SHARED)
    assert error < EXACT if method.averaging is Algebra.LINEAR else error > 100 * EXACT


@ON
@pytest.mark.parametrize("method", MERGED, ids=lambda m: m.name)
def test_what_is_mergeable_can_be_added_to_the_weights(method, kind):
    """Every change is a matrix: read off its columns, add it to the base's own, and the answers are the same."""
    own = attached(kind, method)
    own.write(SHARED, noisy(own))
    wanted = logits(own.model, kind)
    merged = made(kind)
    parameters = dict(merged.named_parameters())
    with torch.no_grad():
        if isinstance(method, Full):
            for name, change in own.changes(SHARED).items():
                parameters[name.removeprefix("base_model.model.")] += change
        else:
            for one in own_placed(own):
                parameters[f"{one.name}.weight"] += one.module(torch.eye(one.width)).T
            for name, tensor in own.schemas[SHARED].unflatten(own.read(SHARED)).items():
                if "classifier" in name:
                    parameters[name.removeprefix("base_model.model.")].copy_(torch.from_numpy(tensor))
    assert torch.allclose(logits(merged, kind), wanted, atol=2e-4, rtol=1e-4)


@ON
@pytest.mark.parametrize("method", [m for m in MERGED if not isinstance(m, Full)], ids=lambda m: m.name)
def test_what_is_mergeable_is_a_lora_to_use(method, kind, tmp_path):
    """Merged by us and opened by peft, it answers as it did on its own; so it can be exported as any LoRA."""
    own = attached(kind, method)
    own.write(SHARED, noisy(own))
    wanted = logits(own.model, kind)
    folded = own.folded(SHARED)
    folded.save(tmp_path / "folded")
    opened = PeftModel.from_pretrained(made(kind), tmp_path / "folded")
    assert torch.allclose(logits(opened, kind), wanted, atol=2e-4, rtol=1e-4)
    if kind == "llama":  # a head is not merged
        model = made(kind)
        merge(model, folded)
        assert torch.allclose(logits(model, kind), wanted, atol=2e-4, rtol=1e-4)


def test_a_fold_of_nothing_is_a_lora_of_nothing():
    own = attached("llama", DiffPruning(density=0.01))
    assert not own.folded(SHARED).vector[own.folded(SHARED).schema.mask(lambda n: "lora_B" in n)].any()


@ON
@METHODS
def test_activations_can_be_computed_again(method, size, kind):
    """Checkpointing gives the same gradients, penalties among them; the trainer does it without reentrance."""
    gradients = []
    for again in (False, True):
        own = attached(kind, method)
        own.write(SHARED, noisy(own))
        if again:
            own.model.gradient_checkpointing_enable({"use_reentrant": False})
            own.model.train()
        parameters = own.parameters(SHARED)
        torch.manual_seed(3)
        loss = own.model(**batch(kind)).loss
        penalty = own.penalty(SHARED)
        (loss if penalty is None else loss + penalty).backward()
        gradients.append([p.grad for p in parameters])
    for one, other in zip(*gradients, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.allclose(one, other, atol=1e-6, rtol=1e-4)
