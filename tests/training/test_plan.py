"""A plan takes the first way that fits, from the gentlest on; footprints are counted, and near what is measured."""

import numpy as np
import pytest
import torch

from fedpeft.base import load_base
from fedpeft.base.hollow import hollow
from fedpeft.errors import FedpeftError
from fedpeft.methods.attached import PRIVATE, SHARED
from fedpeft.methods.lora import Lora
from fedpeft.training import Training
from fedpeft.training.footprint import Footprint, Held, Rehearsal
from fedpeft.training.plan import CHUNK, Thrift, plan, thrifts

FULL, HALF, FOUR = Held("float32", "full"), Held("bfloat16", "full"), Held("bfloat16", "nf4")


def counted(held: Held, thrift: Thrift, window: int) -> Footprint:
    weights = {FULL: 400, HALF: 200, FOUR: 50}[held] * 10**6
    working = 100 * 10**6 * thrift.micro_batch * window // 64
    return Footprint(0, weights, 0, working // (4 if thrift.checkpointing else 1) // (2 if thrift.chunk else 1))


def total(held: Held, thrift: Thrift, window: int = 64) -> int:
    return counted(held, thrift, window).total


WAYS = thrifts(Training(steps=1, batch=8), True, True)


def test_ways_begin_with_nothing_and_end_with_one_example():
    assert WAYS[:3] == [Thrift(False, None, 8), Thrift(False, CHUNK, 8), Thrift(True, CHUNK, 8)]
    assert [way.micro_batch for way in WAYS[3:]] == [4, 2, 1]
    assert thrifts(Training(steps=1, batch=8), False, False, ["micro_batch"]) == [Thrift(False, None, 8)]


def test_what_is_set_by_hand_stays():
    training = Training(steps=1, batch=8, chunk=16, micro_batch=4)
    assert {way.chunk for way in thrifts(training, True, True)} == {16}
    assert thrifts(training, True, True, ["checkpointing"])[0].micro_batch == 4
    assert WAYS[2].of(training).model_dump() == training.model_dump() | {
        "checkpointing": True,
        "chunk": CHUNK,
        "micro_batch": None,
    }


@pytest.mark.parametrize(("held", "way"), [(FULL, 0), (FULL, 1), (FULL, 3), (FULL, 5), (HALF, 2), (FOUR, 4)])
def test_the_first_that_fits_is_taken(held, way):
    helds = [FULL, HALF, FOUR]
    found = plan(total(held, WAYS[way]), helds, WAYS, [64, 32], counted)
    gentler = [(h, w) for h in helds for w in WAYS]
    gentler = gentler[: gentler.index((found.held, found.thrift))]
    assert found.footprint.total <= total(held, WAYS[way])
    assert all(total(h, w) > total(held, WAYS[way]) for h, w in gentler)
    assert found.window == 64


def test_a_shorter_window_is_the_last_resort_and_then_the_least_is_named():
    least = total(FOUR, WAYS[-1], 32)
    assert plan(least, [FULL, HALF, FOUR], WAYS, [64, 32], counted).window == 32
    with pytest.raises(FedpeftError, match=f"expected at least {-(-least // 10**6)}MB.*nf4, 32 tokens, 1 at once"):
        plan(least - 1, [FULL, HALF, FOUR], WAYS, [64, 32], counted)


@pytest.mark.parametrize("precision", ["nf4", "int8"])
def test_a_hollow_base_has_the_shapes_of_a_packed_one(precision):
    real = load_base("keyboard", "bfloat16", precision=precision).model
    made = hollow(load_base("keyboard", "float32"), torch.bfloat16, precision)
    theirs, ours = dict(real.named_parameters()), dict(made.model.named_parameters())
    assert {n: (p.shape, p.dtype) for n, p in theirs.items()} == {n: (p.shape, p.dtype) for n, p in ours.items()}
    assert made.precision == precision
    if precision == "nf4":
        name = next(n for n, p in theirs.items() if hasattr(p, "quant_state"))
        a, b = theirs[name].quant_state, ours[name].quant_state
        assert (a.shape, a.absmax.shape, a.absmax.dtype) == (b.shape, b.absmax.shape, b.absmax.dtype)


@pytest.fixture(scope="module")
def rehearsals(task):
    bare = task.over(load_base("keyboard", "float32"))

    def make(held: Held) -> Rehearsal:
        return Rehearsal(bare, held, Lora(rank=4), Lora(rank=2))

    return {held: make(held) for held in (FULL, HALF, FOUR)}


def test_every_way_to_save_saves(rehearsals):
    training = Training(steps=1, batch=16)
    ways = thrifts(training, True, True)
    for held in (FULL, FOUR):
        found = [rehearsals[held].footprint(way.of(training), SHARED).total for way in [*ways[:3], ways[-1]]]
        assert found == sorted(found, reverse=True), held
        assert found[0] > 1.02 * found[2]
    weights = [rehearsals[held].footprint(training, SHARED).weights for held in (FULL, HALF, FOUR)]
    assert weights == sorted(weights, reverse=True)
    assert rehearsals[FULL].footprint(training.model_copy(update={"optimizer": "adamw8bit"}), SHARED).optimizer * 4 == (
        rehearsals[FULL].footprint(training, SHARED).optimizer
    )


def test_counting_leaves_no_trace_and_repeats(rehearsals):
    training = Training(steps=1, batch=4, checkpointing=True, chunk=32)
    for slot in (SHARED, PRIVATE):
        first = rehearsals[FOUR].footprint(training, slot)
        assert first == rehearsals[FOUR].footprint(training, slot)


def test_what_is_counted_is_what_autograd_really_keeps(attached, task, text, rehearsals):
    """Independent of the mode that counts: the bytes of all tensors that a real forward pass saves."""
    (batch,) = task.batches(text, np.arange(8), 8)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    held = {p.untyped_storage().data_ptr() for p in attached.model.parameters()}
    attached.parameters(SHARED)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        logits, targets = task.predict(attached.model, batch)
        loss = torch.nn.functional.cross_entropy(logits, targets)
    saved = sum(size for pointer, size in kept.items() if pointer not in held)
    assert loss.requires_grad
    found = rehearsals[FULL].footprint(Training(steps=1, batch=8), SHARED, batch).working
    # On top of what is saved lie the logits and their gradient, and what one layer computes for a moment.
    assert saved <= found <= 1.3 * (saved + 2 * logits.nbytes)
