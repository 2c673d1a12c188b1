"""Prompts and prefixes on two tiny bases, and how many numbers each trains.

Sizes are written out from the papers' equations, not from the code.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import PeftModel

from fedpeft.adapters import Adapter
from fedpeft.methods import Attached, Method
from fedpeft.methods.lora import Lora
from fedpeft.methods.lora_prefix import LoraPrefix
from fedpeft.methods.lora_prompt import LoraPrompt
from fedpeft.methods.p_tuning import PTuning
from fedpeft.methods.p_tuning_v2 import PTuningV2
from fedpeft.methods.pfeiffer import Pfeiffer
from fedpeft.methods.prefix_tuning import PrefixTuning
from fedpeft.methods.prompt_adapter import PromptAdapter
from fedpeft.methods.prompt_tuning import PromptTuning
from tests.methods.tiny import HIDDEN, KINDS, LAYERS, base_of, batch, bert, llama

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


# Generation.


def generated(model, **options) -> torch.Tensor:
    ids = batch("llama")["input_ids"]
    options.setdefault("attention_mask", torch.ones_like(ids))
    # No end of text: every sequence shall have all steps.
    return model.generate(input_ids=ids, max_new_tokens=10, min_new_tokens=10, do_sample=False, **options)
