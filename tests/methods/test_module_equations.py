"""Methods of our own: each is its paper's equation."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from fedpeft.methods.adapter_lora import AdapterLora
from fedpeft.methods.attached import SHARED
from fedpeft.methods.bitfit import BitFit
from fedpeft.methods.compacter import Compacter
from fedpeft.methods.diff_pruning import DiffPruning
from fedpeft.methods.expert_mixture import ExpertMixture, imbalance
from fedpeft.methods.fed_sb import FedSb, signed_sums
from fedpeft.methods.houlsby import Houlsby
from fedpeft.methods.lora import Lora
from fedpeft.methods.parallel_adapter import ParallelAdapter
from fedpeft.methods.pfeiffer import Pfeiffer
from fedpeft.methods.shared_lora import SharedLora
from fedpeft.methods.unipelt import UniPelt
from tests.methods.modules import (
    LINEARS,
    ON,
    D,
    M,
    attached,
    logits,
    made,
    noisy,
    own_placed,
    train,
)
from tests.methods.tiny import batch


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
