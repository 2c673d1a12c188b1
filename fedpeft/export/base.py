"""A base as a bundle: one graph with its weights beside it, the tokenizer, and the facts of generation."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_ir as ir

from fedpeft.base import Base
from fedpeft.data.windows import Marks
from fedpeft.device.bundle import FINGERPRINT, GRAPH, TOKENIZER, hash_files, seal
from fedpeft.device.manifest import DecoderFacts, Manifest
from fedpeft.errors import BaseError, nearest
from fedpeft.export.folder import whole_folder
from fedpeft.export.graph import Graph, add_defaults
from fedpeft.export.llama import Dimensions, write_llama
from fedpeft.export.options import ExportOptions
from fedpeft.export.quantize import quantize
from fedpeft.export.weights import Weights
from fedpeft.signing.signature import SigningKey, public_bytes

FAMILIES: dict[str, Callable[[Graph, Any], Dimensions]] = dict.fromkeys(
    ("llama", "mistral", "qwen2", "qwen3"), write_llama
)
"""Who writes the graph of a Hugging Face ``model_type``."""


def export_base(base: Base, out: Path, *, key: SigningKey, options: ExportOptions | None = None) -> Manifest:
    """Write a base bundle.

    Parameters
    ----------
    base : Base
        Its files are exported, not its model object, which may carry adapters.
    out : Path
        The bundle's folder; replaced if it is one already.
    key : Ed25519PrivateKey
        Whose signature the bundle carries.
    options : ExportOptions, optional
        By default a float32 graph with optional inputs for LoRA at every linear layer.

    Returns
    -------
    Manifest
        What :func:`fedpeft.export.export_adapter` checks adapters against.

    Raises
    ------
    BaseError
        When the base's architecture or tokenizer cannot be exported.
    BundleError
        When the folder cannot be written; nothing half-written is left.
    """
    config = base.model.config
    family = require_family(base)
    tokenizer = base.folder / TOKENIZER
    if not tokenizer.is_file():
        raise BaseError(f"base {base.name}", f"no {TOKENIZER}", "a tokenizer of the tokenizers library")
    options = options or ExportOptions()
    graph = Graph(Weights(base.folder), options.variant, options.sites)
    dimensions = FAMILIES[family](graph, config)
    model = graph.model(base.name, {FINGERPRINT: base.fingerprint})
    quantize(model, options.precision)
    if options.variant != "required":
        add_defaults(model, graph.sites())
    with whole_folder(out, mode=0o755) as draft:
        ir.save(model, draft / GRAPH, external_data=f"{GRAPH}.data")
        shutil.copyfile(tokenizer, draft / TOKENIZER)
        manifest = Manifest(
            kind="base",
            base_fingerprint=base.fingerprint,
            signer=public_bytes(key).hex(),
            name=base.name,
            variant=options.variant,
            precision=options.precision,
            files=hash_files(draft),
            tensors=graph.sites(),
            decoder=_facts(dimensions, Marks.of(base.tokenizer)),
            details={"architecture": family, "parameters": base.parameters},
        )
        seal(draft, manifest, key)
    return manifest


def _facts(d: Dimensions, marks: Marks) -> DecoderFacts:
    return DecoderFacts(
        context=d.context,
        vocabulary=d.vocabulary,
        layers=d.layers,
        kv_heads=d.kv_heads,
        head_dim=d.head_dim,
        start=marks.start,
        me=marks.me,
        you=marks.you,
        end=marks.end,
        pad=marks.pad,
    )


def require_family(base: Base) -> str:
    """Return a base's architecture.

    Raises
    ------
    BaseError
        When there is no graph for it.
    """
    family = str(base.model.config.model_type)
    if family not in FAMILIES:
        raise BaseError("base architecture", family, "one that can be exported", nearest(family, FAMILIES))
    return family
