"""LoRA adapters of random numbers, without a model."""

from collections.abc import Mapping

import numpy as np

from fedpeft.adapters import Adapter, Schema

BASE = "b" * 64

MODULES = {"layers.0.q_proj": (12, 20), "layers.1.down_proj": (33, 7)}  # (in, out)


def random_lora(ranks: Mapping[str, int] | int = 4, seed: int = 0, spread: float = 1.0, **config: object) -> Adapter:
    """Return a LoRA on :data:`MODULES`; ``spread`` below 1 makes each direction smaller than the one before."""
    rng = np.random.default_rng(seed)
    ranks = dict.fromkeys(MODULES, ranks) if isinstance(ranks, int) else dict(ranks)
    tensors = {}
    for module, rank in ranks.items():
        inputs, outputs = MODULES[module]
        sizes = spread ** np.arange(rank)
        tensors[f"base_model.model.{module}.lora_A.weight"] = rng.normal(size=(rank, inputs)) * sizes[:, None]
        tensors[f"base_model.model.{module}.lora_B.weight"] = rng.normal(size=(outputs, rank))
    schema = Schema.of({name: t.shape for name, t in tensors.items()})
    usual = {"peft_type": "LORA", "r": 1, "lora_alpha": 2, "rank_pattern": ranks, "target_modules": sorted(ranks)}
    return Adapter(schema, schema.flatten(tensors), {**usual, **config}, BASE)
