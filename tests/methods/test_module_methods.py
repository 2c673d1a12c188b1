"""Methods of our own: what each trains, that it starts as nothing, and what is exact about it.

Sizes are written out from the papers' equations, not from the code; those of the first four also equal what the
package ``adapters`` 1.3.0 counts on these two models (4384, 2192, 2192 and 928 numbers at reduction 8, n = 4). With
equal weights its logits were equal too: Houlsby's to the bit, Compacter's to 1e-7, the parallel adapter's on BERT (on
Llama it reads what comes before the norm).
"""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch.nn import functional as F

from fedpeft.adapters import Adapter
from fedpeft.adapters.merge import merge
from fedpeft.base import load_base
from fedpeft.errors import ScenarioError
from fedpeft.methods import Attached, Method
from fedpeft.methods.adapter_fusion import AdapterFusion
from fedpeft.methods.adapter_lora import AdapterLora
from fedpeft.methods.attached import PRIVATE, SHARED
from fedpeft.methods.bitfit import BitFit
from fedpeft.methods.compacter import Compacter
from fedpeft.methods.diff_pruning import DiffPruning
from fedpeft.methods.expert_mixture import ExpertMixture, imbalance
from fedpeft.methods.fed_sb import FedSb, signed_sums
from fedpeft.methods.full import Full
from fedpeft.methods.houlsby import Houlsby
from fedpeft.methods.lora import Lora
from fedpeft.methods.measure import EXACT, classify, measured_error
from fedpeft.methods.method import Algebra
from fedpeft.methods.parallel_adapter import ParallelAdapter
from fedpeft.methods.pfeiffer import Pfeiffer
from fedpeft.methods.shared_lora import SharedLora
from fedpeft.methods.unipelt import UniPelt
from tests.methods.tiny import KINDS, LABELS, LAYERS, base_of, batch, bert, llama

D, M = 64, 8
# (in, out) of the linear modules of one layer.
LINEARS = {
    "llama": [(64, 64), (64, 32), (64, 32), (64, 64), (64, 128), (64, 128), (128, 64)],
    "bert": [(64, 64)] * 4 + [(64, 128), (128, 64)],
}
SIDES = {kind: sum(a + b for a, b in pairs) for kind, pairs in LINEARS.items()}
ENTRIES = {kind: sum(a * b for a, b in pairs) for kind, pairs in LINEARS.items()}
QUERY_AND_VALUE = {"llama": 64 + 64 + 64 + 32, "bert": 4 * 64}
KEY_WIDTH = {"llama": 32, "bert": 64}
WHOLE = {  # embeddings, layers with their norms (and biases), the rest
    "llama": 128 * 64 + 2 * (ENTRIES["llama"] + 2 * 64) + 64 + 128 * 64,
    "bert": (128 + 128 + 2 + 2) * 64 + 2 * (ENTRIES["bert"] + 5 * 64 + 128 + 4 * 64) + 64 * 64 + 64 + 3 * 64 + 3,
}
ADAPTER = 2 * D * M + M + D


def chosen(kind: str, density: float) -> int:
    return LAYERS * sum(round(density * a * b) for a, b in LINEARS[kind])


CASES: dict[str, tuple[Method, object]] = {
    "houlsby": (Houlsby(size=M), lambda k: 4384),
    "pfeiffer": (Pfeiffer(size=M, activation="gelu"), lambda k: 2192),
    "parallel": (ParallelAdapter(size=M, activation="silu"), lambda k: 2192),
    "compacter": (Compacter(n=4, size=M), lambda k: 928),
    "compacter of rank 2": (Compacter(n=2, size=M, rank=2), lambda k: LAYERS * 2 * (4 * (D + M) + D + M) + 2**3),
    "fusion": (AdapterFusion(experts=3, size=M), lambda k: LAYERS * (3 * ADAPTER + 3 * D * D + 2 * D)),
    "mixture": (ExpertMixture(experts=4, size=M), lambda k: LAYERS * (4 * ADAPTER + 4 * (D + 1))),
    "mixture of one": (ExpertMixture(experts=3, top=1, size=M), lambda k: LAYERS * (3 * ADAPTER + 3 * (D + 1))),
    "fed_sb": (FedSb(rank=6), lambda k: LAYERS * len(LINEARS[k]) * 36),
    "fed_sb of svd": (FedSb(rank=6, init="svd"), lambda k: LAYERS * len(LINEARS[k]) * 36),
    "shared_lora": (SharedLora(rank=3), lambda k: 3 * SIDES[k]),
    "shared_lora in 2": (SharedLora(rank=3, groups=2), lambda k: 2 * 3 * SIDES[k]),
    "bitfit": (BitFit(), lambda k: LAYERS * (sum(b for _, b in LINEARS[k]) + 2 * D)),
    "bitfit without norms": (BitFit(norms=False), lambda k: LAYERS * sum(b for _, b in LINEARS[k])),
    "diff_pruning": (DiffPruning(density=0.01), lambda k: chosen(k, 0.01)),
    "diff_pruning of half": (DiffPruning(density=0.5), lambda k: chosen(k, 0.5)),
    "diff_pruning that learns": (DiffPruning(mask="learned"), lambda k: 2 * LAYERS * ENTRIES[k]),
    "full": (Full(), WHOLE.__getitem__),
    "adapter_lora": (
        AdapterLora(lora=Lora(rank=3), adapter=Pfeiffer(size=M)),
        lambda k: LAYERS * (3 * SIDES[k] + ADAPTER),
    ),
    "unipelt": (
        UniPelt(rank=3, prefix=5, size=M),
        lambda k: LAYERS * (3 * QUERY_AND_VALUE[k] + 2 * 5 * KEY_WIDTH[k] + ADAPTER + 4 * (D + 1)),
    ),
}
METHODS = pytest.mark.parametrize(("method", "size"), CASES.values(), ids=CASES)
ON = pytest.mark.parametrize("kind", KINDS)
MERGED = [m for m, _ in CASES.values() if m.mergeable]


def made(kind: str, dtype: torch.dtype = torch.float32):
    return {"llama": llama, "bert": bert}[kind](dtype=dtype)


def attached(kind: str, method: Method, seed: int = 0, dtype: torch.dtype = torch.float32) -> Attached:
    return Attached(base_of(made(kind, dtype)), method, method.private(4), seed)


def logits(model, kind: str) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch(kind)).logits


def noisy(own: Attached, slot: str = SHARED, deviation: float = 0.05) -> np.ndarray:
    start = own.initial[slot]
    return start + np.random.default_rng(len(slot)).normal(0.0, deviation, len(start)).astype(np.float32)


def fingerprint(model, names: list[str]) -> str:
    hashed = sha256()
    parameters = dict(model.named_parameters())
    for name in names:
        hashed.update(parameters[name.replace(".base_layer.", ".")].detach().float().numpy().tobytes())
    return hashed.hexdigest()


def train(own: Attached, kind: str, slot: str = SHARED, steps: int = 6, rate: float = 3e-3) -> list[float]:
    optimizer = torch.optim.AdamW(own.parameters(slot), lr=rate)
    losses = []
    torch.manual_seed(0)
    for step in range(steps):
        loss = own.model(**batch(kind)).loss
        losses.append(float(loss.detach()))
        penalty = own.penalty(slot)
        (loss if penalty is None else loss + penalty).backward()
        optimizer.step()
        optimizer.zero_grad()
        own.after_step(slot, step + 1, steps)
    return losses


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


def own_placed(own: Attached):
    slot = own._slots[SHARED]
    hooked = slot if hasattr(slot, "_placed") else slot._parts[0]
    return hooked._placed


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


@METHODS
def test_a_share_of_a_change_begins_with_nothing_and_ends_with_all_of_it(method, size):
    own = attached("llama", method)
    slot = PRIVATE if PRIVATE in own.slots else SHARED
    bare = own.initial[slot]
    trained = noisy(own, slot, 0.005)
    own.activate(slot)
    answers = {}
    for share in (0.0, 0.5, 1.0):
        own.write(slot, own.share(slot, bare, trained, share))
        answers[share] = logits(own.model, "llama")
    assert torch.allclose(answers[0.0], logits(made("llama"), "llama"), atol=1e-6)
    own.write(slot, trained)
    assert torch.allclose(answers[1.0], logits(own.model, "llama"), atol=1e-5)
    moved = [(answers[s] - answers[0.0]).norm() for s in (0.5, 1.0)]
    assert 0.35 < moved[0] / moved[1] < 0.7


@pytest.mark.parametrize(
    "method",
    [Houlsby(), Pfeiffer(), ParallelAdapter(), Compacter(), ExpertMixture(), SharedLora(), AdapterLora()],
    ids=lambda m: m.name,
)
def test_half_a_share_is_half_of_what_every_place_adds(method):
    own = attached("llama", method)
    trained = noisy(own, PRIVATE)
    own.write(PRIVATE, trained)
    whole = own.changes(PRIVATE)
    own.write(PRIVATE, own.share(PRIVATE, own.initial[PRIVATE], trained, 0.5))
    for name, change in own.changes(PRIVATE).items():
        torch.testing.assert_close(change, 0.5 * whole[name], atol=1e-6, rtol=1e-5)


def test_fine_tuning_a_shared_adapter_interpolates_all_of_it():
    """Where the outer factor is not zero at the start, the inner one's change has to be shared too."""
    own = attached("llama", Pfeiffer(size=M))
    start, trained = noisy(own), noisy(own, deviation=0.1)
    assert np.array_equal(own.share(SHARED, start, trained, 0.0), start)
    assert np.allclose(own.share(SHARED, start, trained, 0.5), (start + trained) / 2, atol=1e-6)


# Single methods against their definitions


@pytest.mark.parametrize("method", [Houlsby(size=M), Pfeiffer(size=M), ParallelAdapter(size=M, scale=3.0)])
def test_a_bottleneck_is_its_equation(method):
    own = attached("llama", method)
    own.write(SHARED, noisy(own))
    tensors = {n: torch.from_numpy(t.copy()) for n, t in own.schemas[SHARED].unflatten(own.read(SHARED)).items()}
    name = "layers.1.feed_forward"
    x = torch.randn(1, 8, D, generator=torch.Generator().manual_seed(0))
    inner = F.relu(x @ tensors[f"{name}.down.weight"].T + tensors[f"{name}.down.bias"])
    expected = inner @ tensors[f"{name}.up.weight"].T + tensors[f"{name}.up.bias"]
    torch.testing.assert_close(own.changes(SHARED)[name], getattr(method, "scale", 1.0) * expected)


@ON
def test_a_parallel_adapter_reads_what_the_block_reads(kind):
    """Against a model whose block is called with the adapter written out."""
    own = attached(kind, ParallelAdapter(size=M, scale=2.0))
    own.write(SHARED, noisy(own))
    seen = {}
    backbone = own.model.model.layers[0] if kind == "llama" else own.model.bert.encoder.layer[0]
    read, written = (backbone.mlp,) * 2 if kind == "llama" else (backbone.intermediate, backbone.output.dense)
    read.register_forward_pre_hook(lambda _, args: seen.update(x=args[0]))
    written.register_forward_hook(lambda _, args, out: seen.update(y=out))
    logits(own.model, kind)
    x, y = seen["x"], seen["y"]
    own.activate()
    with torch.no_grad():
        plain = read(x) if kind == "llama" else written(read(x))
        expected = plain + own_placed(own)[0].module(x)
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)


def test_compacters_maps_are_sums_of_kronecker_products():
    own = attached("bert", Compacter(n=4, size=M, rank=2, activation="relu"))
    own.write(SHARED, noisy(own))
    tensors = {n: torch.from_numpy(t.copy()) for n, t in own.schemas[SHARED].unflatten(own.read(SHARED)).items()}
    shared = tensors["shared.rules"]
    name = "layers.0.attention"

    def weight(side: str) -> torch.Tensor:
        left, right = tensors[f"{name}.{side}.left"], tensors[f"{name}.{side}.right"]
        return sum(torch.kron(shared[i], left[i] @ right[i]) for i in range(4))

    x = torch.randn(1, 8, D, generator=torch.Generator().manual_seed(0))
    inner = F.relu(x @ weight("down") + tensors[f"{name}.down.bias"])
    expected = inner @ weight("up") + tensors[f"{name}.up.bias"]
    torch.testing.assert_close(own.changes(SHARED)[name], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("rank", "width"), [(1, 7), (6, 64), (32, 64), (64, 64), (5, 33)])
def test_signed_sums_are_orthonormal(rank, width):
    rows = signed_sums(rank, width)
    torch.testing.assert_close(rows @ rows.T, torch.eye(rank), atol=1e-6, rtol=0)
    assert ((rows != 0).sum(0) == 1).all()  # every input counts once


def test_the_factors_of_fed_sb_are_the_bases_own_directions():
    method = FedSb(rank=6, init="svd", targets=["v_proj"])
    own = attached("llama", method)
    module, base = own_placed(own)[0].module, own.model.model.layers[0].self_attn.v_proj.weight
    best = sum(s * torch.outer(u, v) for u, s, v in list(zip(*_svd(base), strict=True))[:6])
    torch.testing.assert_close(module.b @ module.a, best, atol=1e-5, rtol=1e-4)


def _svd(weight):
    u, s, v = torch.linalg.svd(weight.detach(), full_matrices=False)
    return u.T, s, v


def test_layers_of_a_group_change_alike_and_ties_count_once():
    own = attached("llama", SharedLora(rank=3, groups=1))
    own.write(SHARED, noisy(own))
    changes = own.changes(SHARED)
    assert torch.equal(changes["model.layers.0.mlp.down_proj"], changes["model.layers.1.mlp.down_proj"])
    assert len(own.schemas[SHARED].names()) == 2 * len(LINEARS["llama"])
    own = attached("llama", SharedLora(rank=3, groups=2))
    own.write(SHARED, noisy(own))
    changes = own.changes(SHARED)
    assert not torch.equal(changes["model.layers.0.mlp.down_proj"], changes["model.layers.1.mlp.down_proj"])


def test_sharing_in_as_many_groups_as_layers_is_lora():
    shared, plain = attached("llama", SharedLora(rank=4, groups=2)), attached("llama", Lora(rank=4))
    assert shared.schemas[SHARED].size == plain.schemas[SHARED].size
    shared.write(SHARED, noisy(shared))
    theirs = {}
    for name, tensor in shared.schemas[SHARED].unflatten(shared.read(SHARED)).items():
        theirs["base_model.model." + name.replace(".group", ".")] = tensor
    plain.write(SHARED, plain.schemas[SHARED].flatten(theirs))
    torch.testing.assert_close(logits(plain.model, "llama"), logits(shared.model, "llama"), atol=1e-5, rtol=1e-5)


def test_bitfit_on_an_encoder_is_a_change_of_its_biases():
    own = attached("bert", BitFit())
    own.write(SHARED, noisy(own))
    merged = made("bert")
    parameters = dict(merged.named_parameters())
    with torch.no_grad():
        for name, tensor in own.schemas[SHARED].unflatten(own.read(SHARED)).items():
            if "classifier" in name:
                parameters[name.removeprefix("base_model.model.")].copy_(torch.from_numpy(tensor))
            else:
                parameters[name] += torch.from_numpy(tensor)
    torch.testing.assert_close(logits(merged, "bert"), logits(own.model, "bert"), atol=1e-5, rtol=1e-5)


def test_diff_pruning_changes_the_chosen_weights_only():
    own = attached("llama", DiffPruning(density=0.01))
    own.write(SHARED, noisy(own))
    for one in own_placed(own):
        change = one.module(torch.eye(one.width)).T
        assert int((change != 0).sum()) == round(0.01 * change.numel())


def test_a_learnt_mask_becomes_a_fixed_one(tmp_path):
    learner = attached("llama", DiffPruning(mask="learned"))
    train(learner, "llama", steps=3)
    adapter = learner.adapter(SHARED, learner.read(SHARED))
    adapter.save(tmp_path / "learnt")
    own = attached("llama", DiffPruning(mask="given", density=0.02, like=str(tmp_path / "learnt")))
    assert own.schemas[SHARED].context == attached("llama", own.methods[SHARED], seed=9).schemas[SHARED].context
    assert own.schemas[SHARED].context != attached("llama", DiffPruning(density=0.02)).schemas[SHARED].context
    for one, theirs in zip(own_placed(own), own_placed(learner), strict=True):
        with torch.no_grad():
            change = theirs.module(torch.eye(one.width)).T.abs()
        inside = torch.zeros_like(change, dtype=torch.bool)
        inside[tuple(one.module.places)] = True
        assert int(inside.sum()) == round(0.02 * inside.numel())
        assert change[inside].min() >= change[~inside].max()


def test_gates_are_drawn_only_while_they_are_trained():
    own = attached("llama", DiffPruning(mask="learned"))
    own.write(SHARED, noisy(own))
    own.parameters(SHARED)
    torch.manual_seed(0)
    one, other = (own.model(**batch("llama")).logits.detach() for _ in range(2))
    assert not torch.equal(one, other)
    assert torch.equal(logits(own.model, "llama"), logits(own.model, "llama"))


def test_the_penalty_closes_gates():
    """With nothing to learn, gates fall until none is expected to be open."""
    own = attached("llama", DiffPruning(mask="learned", penalty=5.0))
    parameters = own.parameters(SHARED)
    optimizer = torch.optim.AdamW(parameters, lr=0.005, weight_decay=0.0)
    seen = []
    for _ in range(60):
        penalty = own.penalty(SHARED)
        seen.append(float(penalty.detach()))
        penalty.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert seen[0] == pytest.approx(5.0 * 2.5 / 4, abs=1e-3)  # σ(-log(l/r)) = r / (r - l) at α = 0
    assert seen[-1] < 0.2 * seen[0]
    for one in own_placed(own):
        assert (10 * one.module.gates < -0.52).all()  # where z is zero for good


@pytest.mark.parametrize("top", [1, 2, 4])
def test_a_mixture_is_the_gated_sum_of_the_chosen(top):
    own = attached("llama", ExpertMixture(experts=4, top=top, size=M))
    own.write(SHARED, noisy(own, deviation=0.3))
    module = own_placed(own)[0].module
    x = torch.randn(1, 8, D, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros_like(x)
    with torch.no_grad():
        for t in range(8):
            scores = module.router(x[0, t])
            best = sorted(range(4), key=lambda e: -float(scores[e]))[:top]
            over = scores.exp().sum() if top == 1 else scores[best].exp().sum()
            expected[0, t] = sum(scores[e].exp() / over * module.experts[e](x[0, t]) for e in best)
    torch.testing.assert_close(own.changes(SHARED)["layers.0.feed_forward"], expected, atol=1e-6, rtol=1e-5)


def test_uneven_use_of_experts_costs_and_even_use_does_not():
    even = torch.full((6, 3), 1 / 3)
    assert imbalance(even, torch.tensor([[0], [1], [2]] * 2)) == pytest.approx(1.0)
    alone = torch.zeros(6, 3)
    alone[:, 1] = 1.0
    assert imbalance(alone, torch.full((6, 1), 1)) == pytest.approx(3.0)
    own = attached("llama", ExpertMixture(size=M, balance=0.5))
    own.parameters(SHARED)
    assert own.penalty(SHARED) is None  # nothing has passed yet
    own.model(**batch("llama"))
    assert 0.4 < own.penalty(SHARED).item() < 2.0
    assert own.penalty(SHARED) is None
    logits(own.model, "llama")
    assert own.penalty(SHARED) is None  # nor was this pass trained on
    own = attached("llama", ExpertMixture(size=M, balance=0.0))
    own.parameters(SHARED)
    own.model(**batch("llama"))
    assert own.penalty(SHARED) is None


def test_routers_stay_with_the_client():
    own = attached("llama", ExpertMixture(size=M))
    kept = [n for n in own.schemas[SHARED].names() if any(part in n for part in ExpertMixture.keeps)]
    assert sorted(kept) == sorted(f"layers.{i}.feed_forward.router.{p}" for i in range(2) for p in ("weight", "bias"))


def test_lora_comes_before_the_adapter():
    """The adapter reads what LoRA has already changed, in an encoder too, where both stand at one module."""
    own = attached("bert", AdapterLora(lora=Lora(rank=3, targets=["output.dense"]), adapter=Pfeiffer(size=M)))
    own.write(SHARED, noisy(own, deviation=0.2))
    layer = own.model.bert.encoder.layer[0].output.dense
    x = torch.randn(2, 3, 128)
    adapter = own._slots[SHARED]._parts[0]._parts[1]._placed[0].module
    with torch.no_grad():
        both = layer(x)
        own._slots[SHARED]._parts[0]._parts[1].enable(False)
        changed = layer(x)
    assert not torch.allclose(changed, layer.base_layer(x))
    torch.testing.assert_close(both, changed + adapter(changed), atol=1e-5, rtol=1e-5)


@ON
def test_a_prefix_adds_what_attention_over_it_gives(kind):
    own = attached(kind, UniPelt(rank=2, prefix=5, size=M))
    own.write(SHARED, noisy(own, deviation=0.3))
    placed = next(one for one in own_placed(own) if one.name == "layers.0.attention")
    keys, values = placed.module.part.keys, placed.module.part.values
    q = torch.randn(2, 3, D)
    with torch.no_grad():
        found, gate = placed.module(q), torch.sigmoid(q @ placed.module.gate.weight[0] + placed.module.gate.bias)
        for h in range(4):  # query heads of 16; two of them share keys in the llama
            mine, own_head = q[..., 16 * h : 16 * h + 16], h * len(keys) // 4
            expected = F.softmax(mine @ keys[own_head].T / 4.0, -1) @ values[own_head] * gate[..., None]
            torch.testing.assert_close(found[..., 16 * h : 16 * h + 16], expected, atol=1e-5, rtol=1e-5)


@METHODS
def test_no_token_sees_a_later_one(method, size):
    own = attached("llama", method)
    own.write(SHARED, noisy(own))
    ids = batch("llama")["input_ids"]
    other = ids.clone()
    other[:, 6:] = 5
    with torch.no_grad():
        one, two = own.model(input_ids=ids).logits, own.model(input_ids=other).logits
        torch.testing.assert_close(one[:, :6], two[:, :6], atol=1e-5, rtol=1e-5)
        cached = own.model(input_ids=ids[:, :6], use_cache=True).past_key_values
        later = own.model(input_ids=ids[:, 6:], past_key_values=cached).logits
    torch.testing.assert_close(later, one[:, 6:], atol=1e-4, rtol=1e-4)


def test_full_fine_tuning_of_the_builtin_base_leaves_its_file_alone():
    base = load_base("keyboard", "float32")
    file = base.folder / "model.safetensors"
    before = sha256(file.read_bytes()).hexdigest()
    own = Attached(base, Full(), Full().private(4), 0)
    assert own.schemas[SHARED].size == base.parameters  # tied embeddings once
    own.write(SHARED, own.read(SHARED) + np.float32(0.01))
    own.activate()
    assert sha256(file.read_bytes()).hexdigest() == before
    own.activate(SHARED, PRIVATE)
    assert set(own.methods) == {SHARED, PRIVATE}
    assert isinstance(own.methods[PRIVATE], Lora)


@METHODS
def test_the_builtin_base_can_learn_with_it(method, size):
    own = Attached(load_base("keyboard", "float32"), method, None, 0)
    ids = torch.randint(5, 2048, (2, 12), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(own.parameters(SHARED), lr=1e-3)
    losses = []
    for _ in range(4):
        loss = own.model(input_ids=ids, labels=ids).loss
        losses.append(float(loss.detach()))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]


def test_the_bases_own_directions_are_not_to_be_had_from_four_bits():
    with pytest.raises(
        ScenarioError, match=r"^method\.init: found 'svd', expected random; the base's weights are quant"
    ):
        Attached(load_base("keyboard", "float32", precision="nf4"), FedSb(init="svd"), None, 0)


@pytest.mark.parametrize("method", [Pfeiffer(size=M), FedSb(rank=4), BitFit(), DiffPruning(), SharedLora(rank=2)])
def test_a_base_in_four_bits_will_do(method):
    own = Attached(load_base("keyboard", "float32", precision="nf4"), method, None, 0)
    ids = torch.randint(5, 2048, (2, 12), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(own.parameters(SHARED), lr=3e-3)
    losses = []
    for _ in range(3):
        loss = own.model(input_ids=ids, labels=ids).loss
        losses.append(float(loss.detach()))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Houlsby(size=65), "method.size: found 65, expected at most 64"),
        (ExpertMixture(size=65), "method.size: found 65, expected at most 64"),
        (AdapterFusion(size=65), "method.size: found 65, expected at most 64"),
        (AdapterLora(adapter=Pfeiffer(size=65)), "method.adapter.size: found 65, expected at most 64"),
        (UniPelt(size=65), "method.size: found 65, expected at most 64"),
        (Compacter(n=3, size=9), "method.n: found 3, expected a divisor of 64"),
        (Compacter(n=4, size=10), "method.size: found 10, expected a multiple of n = 4"),
        (Compacter(n=4, size=8, rank=3), "method.rank: found 3, expected at most size / n = 2"),
        (ExpertMixture(experts=2, top=3), "method.top: found 3, expected at most experts = 2"),
        (FedSb(rank=33), "method.rank: found 33, expected at most 32; .* is 32 wide"),
        (SharedLora(rank=33), "method.rank: found 33, expected at most 32; .* is 32 wide"),
        (AdapterLora(lora=Lora(rank=33)), "method.lora.rank: found 33, expected at most 32; .* is 32 wide"),
        (UniPelt(rank=33), "method.rank: found 33, expected at most 32"),
        (SharedLora(rank=2, groups=3), "method.groups: found 3, expected at most 2"),
        (
            SharedLora(rank=2, targets=["lm_head"]),
            "method.targets: found 'lm_head', expected modules inside the layers",
        ),
        (FedSb(rank=2, targets=["q_porj"]), "method.targets: found 'q_porj', .*q_proj.*; modules of this base: "),
        (BitFit(targets=["nowhere"]), "method.targets: found 'nowhere'"),
        (DiffPruning(mask="given"), "method.like: found '', expected the folder of an adapter; mask is 'given'"),
        (DiffPruning(like="folder"), "method.like: found 'folder', expected nothing; mask is 'seeded'"),
        (DiffPruning(targets=[]), r"method.targets: found \[\]"),
        (DiffPruning(mask="learned", targets=["nowhere"]), "method.targets: found 'nowhere'"),
    ],
    ids=lambda v: v.name if isinstance(v, Method) else "",
)
def test_what_does_not_fit_the_base_is_refused_with_a_remedy(method, message):
    with pytest.raises(ScenarioError, match=f"^{message}"):
        Attached(base_of(llama()), method, None, 0)


def test_a_mask_of_another_method_or_base_is_refused(tmp_path):
    own = attached("llama", Pfeiffer(size=M))
    own.adapter(SHARED, own.read(SHARED)).save(tmp_path / "pfeiffer")
    with pytest.raises(
        ScenarioError, match=r"^method\.like: found 'pfeiffer in .*', expected diff_pruning with mask = 'learned'"
    ):
        attached("llama", DiffPruning(mask="given", like=str(tmp_path / "pfeiffer")))
    other = attached("bert", DiffPruning(mask="learned"))
    other.adapter(SHARED, other.read(SHARED)).save(tmp_path / "bert")
    with pytest.raises(ScenarioError, match=r"^method\.like: found 'nothing for model\.layers\.0"):
        attached("llama", DiffPruning(mask="given", like=str(tmp_path / "bert")))


@METHODS
def test_its_row_in_the_documents_is_one_line_each(method, size):
    for field in ("equation", "source", "sends", "limits"):
        text = getattr(type(method), field)
        assert text
        assert "\n" not in text
        assert len(text) <= 120
    assert all(field.description for field in type(method).model_fields.values())
