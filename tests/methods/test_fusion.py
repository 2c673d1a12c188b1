"""AdapterFusion over adapters that were trained before, and over new ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fedpeft.adapters import Adapter
from fedpeft.errors import AdapterError, FedpeftError, ScenarioError
from fedpeft.methods import Attached, Method
from fedpeft.methods.adapter_fusion import AdapterFusion
from fedpeft.methods.attached import SHARED
from fedpeft.methods.lora import Lora
from fedpeft.methods.pfeiffer import Pfeiffer
from tests.methods.tiny import KINDS, LABELS, LAYERS, base_of, batch, bert, llama

D, M = 64, 8
ON = pytest.mark.parametrize("kind", KINDS)


def attached(kind: str, method: Method, seed: int = 0) -> Attached:
    return Attached(base_of({"llama": llama, "bert": bert}[kind]()), method, None, seed)


def logits(own: Attached, kind: str) -> torch.Tensor:
    with torch.no_grad():
        return own.model(**batch(kind)).logits


def saved(kind: str, folder: Path, seed: int, method: Method | None = None) -> Adapter:
    """Save an adapter far from its start, and return it."""
    own = attached(kind, method or Pfeiffer(size=M + seed, activation="gelu"))
    vector = np.random.default_rng(seed).normal(0.0, 0.1, own.schemas[SHARED].size).astype(np.float32)
    adapter = own.adapter(SHARED, vector)
    adapter.save(folder)
    return adapter


@pytest.fixture(params=KINDS)
def given(request, tmp_path) -> tuple[str, list[str], list[Adapter]]:
    folders = [tmp_path / "one", tmp_path / "two", tmp_path / "three"]
    adapters = [saved(request.param, folder, seed) for seed, folder in enumerate(folders)]
    return request.param, [str(folder) for folder in folders], adapters


def test_over_given_adapters_only_the_fusion_is_trained(given):
    kind, folders, _ = given
    own = attached(kind, AdapterFusion(adapters=folders))
    head = LABELS * (D + 1) if kind == "bert" else 0
    # adapters 1.3.0 counts 24,832 numbers for the same fusion of three.
    assert own.schemas[SHARED].size - head == 24_832 == LAYERS * (3 * D * D + 2 * D)
    fusion = [name for name in own.schemas[SHARED].names() if "classifier" not in name]
    assert all(any(part in name for part in AdapterFusion.keeps) for name in fusion)
    assert {p.shape for p in own.parameters(SHARED)} >= {torch.Size([D, D])}


def test_the_mixture_of_given_adapters_is_the_papers(given):
    kind, folders, adapters = given
    own = attached(kind, AdapterFusion(adapters=folders))
    rng = np.random.default_rng(0)
    own.write(SHARED, own.read(SHARED) + rng.normal(0.0, 0.1, own.schemas[SHARED].size).astype(np.float32))
    name = "layers.1.feed_forward"
    fusion = {
        n.removeprefix(f"{name}.fusion."): torch.from_numpy(t.copy()).double()
        for n, t in own.schemas[SHARED].unflatten(own.read(SHARED)).items()
        if n.startswith(name)
    }
    y = torch.randn(1, 8, D, generator=torch.Generator().manual_seed(0)).double()
    results = []
    for adapter in adapters:
        part = {n.removeprefix(f"{name}."): torch.from_numpy(t.copy()).double() for n, t in adapter.tensors().items()}
        inner = torch.nn.functional.gelu(y @ part["down.weight"].T + part["down.bias"])
        results.append(inner @ part["up.weight"].T + part["up.bias"])
    expected = torch.zeros_like(y)
    for t in range(8):
        query = fusion["query.weight"] @ y[0, t] + fusion["query.bias"]
        keys = [fusion["key.weight"] @ z[0, t] + fusion["key.bias"] for z in results]
        weights = torch.stack([query @ k for k in keys]).softmax(0)
        expected[0, t] = sum(w * (fusion["value.weight"] @ z[0, t]) for w, z in zip(weights, results, strict=True))
    torch.testing.assert_close(own.changes(SHARED)[name].double(), expected, atol=1e-4, rtol=1e-3)


def test_a_fusion_of_one_adapter_starts_as_that_adapter(given):
    kind, folders, adapters = given
    alone = attached(kind, Pfeiffer(size=M, activation="gelu"))
    alone.write(SHARED, adapters[0].vector)
    own = attached(kind, AdapterFusion(adapters=folders[:1]))
    heads = [n for n in own.schemas[SHARED].names() if "classifier" in n]
    start = own.schemas[SHARED].unflatten(own.read(SHARED))
    for name in heads:  # a head is the new task's own
        start[name][:] = adapters[0].tensors()[name]
    own.write(SHARED, own.schemas[SHARED].flatten(start))
    torch.testing.assert_close(logits(own, kind), logits(alone, kind), atol=1e-5, rtol=1e-5)


def test_the_adapters_belong_to_the_schema_and_stay_as_they_are(given):
    kind, folders, adapters = given
    own, same = (attached(kind, AdapterFusion(adapters=folders)) for _ in range(2))
    other = attached(kind, AdapterFusion(adapters=[*folders[:2], folders[0]]))
    assert own.schemas[SHARED].context
    assert own.schemas[SHARED].digest == same.schemas[SHARED].digest != other.schemas[SHARED].digest
    optimizer = torch.optim.AdamW(own.parameters(SHARED), lr=3e-3)
    losses = []
    for _ in range(6):
        loss = own.model(**batch(kind)).loss
        losses.append(float(loss.detach()))
        (loss + own.penalty(SHARED)).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
    context = own._slots[SHARED].context
    for number, adapter in enumerate(adapters):
        for name, tensor in adapter.tensors().items():
            if "classifier" not in name:
                layer, rest = name.split(".feed_forward.")
                assert np.array_equal(context[f"{layer}.feed_forward.experts.{number}.{rest}"].numpy(), tensor)
    bare = logits(attached(kind, Pfeiffer(size=M)), kind)
    own.activate()
    assert torch.equal(logits(own, kind), bare)


@ON
def test_new_adapters_are_trained_with_the_fusion_and_only_they_travel(kind):
    own = attached(kind, AdapterFusion(experts=3, size=M))
    names = [n for n in own.schemas[SHARED].names() if "classifier" not in n]
    travels = [n for n in names if not any(part in n for part in AdapterFusion.keeps)]
    assert len(travels) == LAYERS * 3 * 4
    assert all(".experts." in n for n in travels)
    assert own.schemas[SHARED].context == ""


def test_the_penalty_holds_the_values_near_the_identity():
    own = attached("llama", AdapterFusion(experts=2, size=M, pull=0.5))
    assert own.penalty(SHARED).item() == 0.0
    tensors = own.schemas[SHARED].unflatten(own.read(SHARED))
    tensors["layers.0.feed_forward.fusion.value.weight"][0, 1] += 2.0
    own.write(SHARED, own.schemas[SHARED].flatten(tensors))
    assert own.penalty(SHARED).item() == pytest.approx(0.5 * 4.0)
    own.activate()
    assert own.penalty(SHARED) is None
    assert attached("llama", AdapterFusion(experts=2, size=M, pull=0.0)).penalty(SHARED) is None


def test_adapters_that_do_not_fit_are_refused(tmp_path):
    saved("llama", tmp_path / "lora", 0, Lora(rank=2))
    with pytest.raises(ScenarioError, match=r"^method\.adapters: found 'LORA in .*lora', expected pfeiffer adapters"):
        attached("llama", AdapterFusion(adapters=[str(tmp_path / "lora")]))
    narrow = Adapter.load(_rewritten(tmp_path))
    assert narrow.tensors()["layers.0.feed_forward.up.weight"].shape == (D - 1, M)
    with pytest.raises(ScenarioError, match=r"^method\.adapters: found '\(63, 8\) for up\.weight of layer 0"):
        attached("llama", AdapterFusion(adapters=[str(tmp_path / "narrow")]))
    one = saved("llama", tmp_path / "one", 0)
    Adapter(one.schema, one.vector, one.config, "1" * 64).save(tmp_path / "foreign")
    with pytest.raises(AdapterError, match=r"^adapter base: found '111111111111…', expected the base "):
        attached("llama", AdapterFusion(adapters=[str(tmp_path / "one"), str(tmp_path / "foreign")]))
    with pytest.raises(FedpeftError, match="nowhere"):
        attached("llama", AdapterFusion(adapters=[str(tmp_path / "nowhere")]))


def _rewritten(folder: Path) -> Path:
    """Save an adapter with a row cut off every upper matrix."""
    one = saved("llama", folder / "whole", 0)
    tensors = {n: t[:-1] if n.endswith("up.weight") else t for n, t in one.tensors().items()}
    schema = type(one.schema).of({n: t.shape for n, t in tensors.items()})
    Adapter(schema, schema.flatten(tensors), one.config, one.base).save(folder / "narrow")
    return folder / "narrow"
