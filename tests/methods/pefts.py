"""Methods that peft has too, on two tiny bases, and how many numbers each trains by its closed form."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import numpy as np
import pytest
import torch

from fedpeft.base.quantize import quantize
from fedpeft.methods import Attached
from fedpeft.methods.adalora import AdaLora
from fedpeft.methods.attached import SHARED
from fedpeft.methods.ia3 import IA3
from fedpeft.methods.lora import Lora
from fedpeft.methods.method import Method
from fedpeft.methods.qlora import QLora
from fedpeft.methods.vera import Vera
from tests.methods import tiny

BOTH = pytest.mark.parametrize("kind", tiny.KINDS)

H, F, KV, L = tiny.HIDDEN, tiny.WIDE, tiny.HIDDEN // 2, tiny.LAYERS

SIDES = {
    "llama": [(H, H), (H, KV), (H, KV), (H, H), (H, F), (H, F), (F, H)],
    "bert": [(H, H), (H, H), (H, H), (H, H), (H, F), (F, H)],
}

"""(in, out) of a layer's linear modules, written down here a second time."""

HEAD = {"llama": 0, "bert": H * tiny.LABELS + tiny.LABELS}

PARAMETERS = {
    "llama": 2 * tiny.VOCABULARY * H + L * (2 * H * H + 2 * H * KV + 3 * H * F + 2 * H) + H,
    "bert": (2 * tiny.VOCABULARY + 2) * H
    + 2 * H
    + L * (4 * (H * H + H) + 2 * H + H * F + F + F * H + H + 2 * H)
    + H * H
    + H,
}


def total(kind: str, one: Callable[[int, int], int]) -> int:
    return L * sum(one(i, o) for i, o in SIDES[kind])


CASES: dict[str, tuple[Method, Callable[[str], int]]] = {
    "lora": (Lora(rank=3), lambda k: total(k, lambda i, o: 3 * (i + o))),
    "lora, rsLoRA": (Lora(rank=4, rslora=True), lambda k: total(k, lambda i, o: 4 * (i + o))),
    "lora, DoRA": (Lora(rank=3, dora=True), lambda k: total(k, lambda i, o: 3 * (i + o) + o)),
    "lora, gaussian": (Lora(rank=3, init="gaussian"), lambda k: total(k, lambda i, o: 3 * (i + o))),
    "lora, orthogonal": (Lora(rank=3, init="orthogonal"), lambda k: total(k, lambda i, o: 3 * (i + o))),
    "lora, auto": (
        Lora(rank="auto", budget=0.1),
        lambda k: int(0.1 * PARAMETERS[k] / total(k, lambda i, o: i + o)) * total(k, lambda i, o: i + o),
    ),
    "lora, auto DoRA": (
        Lora(rank="auto", dora=True, budget=0.1),
        lambda k: (
            int((0.1 * PARAMETERS[k] - total(k, lambda i, o: o)) / total(k, lambda i, o: i + o))
            * total(k, lambda i, o: i + o)
            + total(k, lambda i, o: o)
        ),
    ),
    "adalora": (
        AdaLora(init_rank=4, target_rank=2, warmup=2, until=6, alpha=64),
        lambda k: total(k, lambda i, o: 4 * (i + o + 2)) + 1,
    ),
    "qlora": (QLora(rank=3), lambda k: total(k, lambda i, o: 3 * (i + o))),
    "ia3": (IA3(), lambda k: L * ((KV + KV if k == "llama" else H + H) + F)),
    "vera": (Vera(rank=20), lambda k: total(k, lambda i, o: o + 20)),
    "vera, d frozen": (Vera(rank=20, train_d=False), lambda k: total(k, lambda i, o: o)),
}

ALL = pytest.mark.parametrize("case", CASES)


def model_of(kind: str, method: Method, dtype: torch.dtype = torch.float32):
    model = getattr(tiny, kind)(dtype=dtype)
    if method.precision != "full":
        quantize(model, method.precision, keep=("classifier.weight", "classifier.bias"))
        model.requires_grad_(False).eval()
    return model


def attach(kind: str, method: Method, private: Method | None = None, seed: int = 0, dtype=torch.float32) -> Attached:
    return Attached(tiny.base_of(model_of(kind, method, dtype)), method, private, seed)


def logits(model, kind: str) -> torch.Tensor:
    inputs = {name: t for name, t in tiny.batch(kind).items() if name != "labels"}
    with torch.no_grad():
        return model(**inputs).logits


def train(made: Attached, kind: str, slot: str = SHARED, steps: int = 8, rate: float | None = None) -> list[float]:
    """AdamW as the trainer does it, with the method's penalty and its word after each step."""
    parameters = made.parameters(slot)
    optimizer = torch.optim.AdamW(parameters, lr=rate or 3 * made.methods[slot].rate, weight_decay=0.0)
    losses = []
    made.model.train()
    torch.manual_seed(0)  # one of peft's types draws random numbers as it trains
    for step in range(steps):
        loss = made.model(**tiny.batch(kind)).loss
        losses.append(loss.item())
        penalty = made.penalty(slot)
        (loss if penalty is None else loss + penalty).backward()
        optimizer.step()
        made.after_step(slot, step + 1, steps)
        optimizer.zero_grad()
    made.model.eval()
    return losses


def moved(made: Attached, slot: str = SHARED, seed: int = 0, deviation: float = 0.1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (made.initial[slot] + deviation * rng.standard_normal(made.initial[slot].size)).astype(np.float32)


def sha(parameter: torch.Tensor) -> str:
    return sha256(parameter.detach().contiguous().view(torch.uint8).numpy().data).hexdigest()
