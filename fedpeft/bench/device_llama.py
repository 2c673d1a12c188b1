"""A Llama of 100M parameters for timing: its shape is real, its weights and adapters are random numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from fedpeft.base import Base, load_base
from fedpeft.bench.serve_people import random_lora
from fedpeft.device.manifest import Manifest, Precision
from fedpeft.device.runtime import Runtime
from fedpeft.export import ExportOptions, export_adapter, export_base
from fedpeft.signing.signature import SigningKey

QUERY_VALUE = ("q_proj", "v_proj")
"""peft's own choice for Llama."""
EVERY_LINEAR = (*QUERY_VALUE, "k_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""fedpeft's."""
PRECISIONS: tuple[Precision, ...] = ("float32", "int4")
RANKS = (8, 4, 16, 2, 8, 4, 16, 2)
"""Of the people in a batch."""
_KEY = SigningKey.from_private_bytes(bytes(32))


@dataclass(frozen=True)
class Llama:
    """Where everything lies.

    Parameters
    ----------
    base : Base
    folder : Path
        With a bundle of each precision, ``float32`` and ``int4``, the same for rows, ``rows-float32`` …, and adapter
        bundles: ``all`` and ``query_value`` of rank 8, ``row0`` ….
    manifest : Manifest
        Of one of the bundles for one row.
    """

    base: Base
    folder: Path
    manifest: Manifest

    def runtime(self, precision: Precision) -> Runtime:
        """Open a base on one thread, a quantized one as a device would after its first start."""
        prepacked = None if precision == "float32" else self.folder / "prepacked"
        return Runtime(self.folder / precision, prepacked=prepacked)


def make_llama(folder: Path) -> Llama:
    """Make the model, its graphs and its adapters."""
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder / "model")
    load_base("keyboard").tokenizer.save_pretrained(folder / "model")
    base = load_base(str(folder / "model"), "float32")
    for precision in PRECISIONS:
        manifest = export_base(base, folder / precision, key=_KEY, options=ExportOptions("optional", precision))
        export_base(base, folder / f"rows-{precision}", key=_KEY, options=ExportOptions("rows", precision))
    llama = Llama(base, folder, manifest)
    export_lora(llama, "all", EVERY_LINEAR, 8)
    export_lora(llama, "query_value", QUERY_VALUE, 8)
    for i, rank in enumerate(RANKS):
        export_lora(llama, f"row{i}", QUERY_VALUE, rank, seed=i + 1)
    return llama


def export_lora(llama: Llama, name: str, layers: tuple[str, ...], rank: int, seed: int = 0) -> None:
    """Write an adapter bundle of random numbers on some layers."""
    sites = {site: shape for site, shape in llama.manifest.tensors.items() if any(layer in site for layer in layers)}
    adapter = random_lora(llama.manifest.model_copy(update={"tensors": sites}), rank, seed, deviation=0.02)
    export_adapter(adapter, llama.folder / name, owner=name, base=llama.manifest, key=_KEY)
