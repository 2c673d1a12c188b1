"""A run with many people whose adapters all say something else: made in seconds, without training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from fedpeft.adapters import Adapter, Schema
from fedpeft.base import Base
from fedpeft.device.folders import RECORD, adapter_folder, base_folder, rows_folder
from fedpeft.device.manifest import Manifest
from fedpeft.export import export_adapter, export_base
from fedpeft.export.options import ExportOptions
from fedpeft.signing.signature import SigningKey

RANKS = (4, 8, 16, 2)
"""Of one person after the other."""
DEVIATION = 0.2
"""Of the numbers in A and B: enough that nobody's answers are anybody else's."""


def make_run(run: Path, base: Base, people: int, key: SigningKey) -> list[str]:
    """Write both bases and one adapter per person.

    Parameters
    ----------
    run : Path
    base : Base
    people : int
    key : Ed25519PrivateKey
        Whose signature the bundles carry.

    Returns
    -------
    list of str
        Their names.
    """
    names = [f"person{i:02}" for i in range(people)]
    manifest = export_base(base, base_folder(run), key=key)
    export_base(base, rows_folder(run), key=key, options=ExportOptions("rows"))
    for i, name in enumerate(names):
        adapter = random_lora(manifest, RANKS[i % len(RANKS)], seed=i)
        export_adapter(adapter, adapter_folder(run, name), owner=name, base=manifest, key=key)
    (run / RECORD).write_text(json.dumps({"started": "2026-01-01T00:00:00+00:00"}), encoding="utf-8")
    return names


def random_lora(base: Manifest, rank: int, seed: int, deviation: float = DEVIATION) -> Adapter:
    """Make a LoRA of random numbers on every linear layer."""
    shapes = {
        f"base_model.model.{name}": tuple(rank if n is None else n for n in reversed(shape))
        for name, shape in base.tensors.items()
    }
    schema = Schema.of(shapes)
    vector = np.random.default_rng(seed).normal(0, deviation, schema.size).astype(np.float32)
    return Adapter(schema, vector, {"peft_type": "LORA", "r": rank, "lora_alpha": 16}, base.base_fingerprint)
