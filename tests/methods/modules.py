"""The modules that methods of our own put into two tiny bases, and how many numbers each trains.

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

from fedpeft.methods import Attached, Method
from fedpeft.methods.adapter_fusion import AdapterFusion
from fedpeft.methods.adapter_lora import AdapterLora
from fedpeft.methods.attached import SHARED
from fedpeft.methods.bitfit import BitFit
from fedpeft.methods.compacter import Compacter
from fedpeft.methods.diff_pruning import DiffPruning
from fedpeft.methods.expert_mixture import ExpertMixture
from fedpeft.methods.fed_sb import FedSb
from fedpeft.methods.full import Full
from fedpeft.methods.houlsby import Houlsby
from fedpeft.methods.lora import Lora
from fedpeft.methods.parallel_adapter import ParallelAdapter
from fedpeft.methods.pfeiffer import Pfeiffer
from fedpeft.methods.shared_lora import SharedLora
from fedpeft.methods.unipelt import UniPelt
from tests.methods.tiny import KINDS, LAYERS, base_of, batch, bert, llama

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


def own_placed(own: Attached):
    slot = own._slots[SHARED]
    hooked = slot if hasattr(slot, "_placed") else slot._parts[0]
    return hooked._placed
