"""A base as a bundle: one graph with its weights beside it, the tokenizer, and the facts of generation."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from pydantic import JsonValue
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from fedpeft.base import Base
from fedpeft.data.marks import Marks
from fedpeft.device.bundle import FINGERPRINT, GRAPH, TEMPLATE, TOKENIZER, hash_files, seal
from fedpeft.device.manifest import DecoderFacts, EncoderFacts, Manifest, Shape
from fedpeft.errors import BaseError
from fedpeft.export.folder import whole_folder
from fedpeft.export.graph import Graph, add_defaults, fix
from fedpeft.export.llama import Dimensions, write_llama
from fedpeft.export.options import Backend, ExportOptions
from fedpeft.export.quantize import quantize
from fedpeft.export.weights import Tensors, Weights
from fedpeft.signing.signature import SigningKey, public_bytes

FAMILIES: dict[str, Callable[[Graph, Any], Dimensions]] = dict.fromkeys(
    ("llama", "mistral", "qwen2", "qwen3"), write_llama
)
"""Who writes the graph of a Hugging Face ``model_type``; torch traces the others."""


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
    options = options or ExportOptions()
    facts: dict[str, JsonValue] = {"architecture": base.model.config.model_type, "parameters": base.parameters}
    return write_base(_draw(base, options), base, base.fingerprint, out, key=key, options=options, details=facts)


def write_base(
    drawn: Drawn,
    base: Base,
    fingerprint: str,
    out: Path,
    *,
    key: SigningKey,
    options: ExportOptions,
    details: dict[str, JsonValue],
    fixed: Mapping[str, NDArray[np.float32]] = MappingProxyType({}),
    mode: int = 0o755,
) -> Manifest:
    """Quantize a graph, give its sites their defaults, and write it with what it takes to run it.

    Parameters
    ----------
    drawn : Drawn
    base : Base
        Whose tokenizer goes with it.
    fingerprint : str
        Of the base that the graph is; adapters of any other are refused.
    out : Path
    key : Ed25519PrivateKey
    options : ExportOptions
    details : dict
        For the manifest.
    fixed : mapping of str to ndarray of float32, optional
        Values of sites that become part of the graph instead of inputs.
    mode : int
        Of the folder.
    """
    tokenizer = base.folder / TOKENIZER
    if not tokenizer.is_file():
        raise BaseError(f"base {base.name}", f"no {TOKENIZER}", "a tokenizer of the tokenizers library")
    drawn.model.metadata_props[FINGERPRINT] = fingerprint
    quantize(drawn.model, options.precision)
    fix(drawn.model, fixed)
    sites = {name: shape for name, shape in drawn.sites.items() if name not in fixed}
    if options.variant != "required":
        add_defaults(drawn.model, sites)
    with whole_folder(out, mode=mode) as draft:
        ir.save(drawn.model, draft / GRAPH, external_data=f"{GRAPH}.data")
        shutil.copyfile(tokenizer, draft / TOKENIZER)
        template = getattr(base.tokenizer, "chat_template", None)
        if drawn.decoder is not None and isinstance(template, str):
            (draft / TEMPLATE).write_text(template, encoding="utf-8")
        manifest = Manifest(
            kind="base",
            base_fingerprint=fingerprint,
            signer=public_bytes(key).hex(),
            name=base.name,
            variant=options.variant,
            precision=options.precision,
            files=hash_files(draft),
            tensors=sites,
            decoder=drawn.decoder,
            encoder=drawn.encoder,
            details=details,
        )
        seal(draft, manifest, key)
    return manifest


@dataclass(frozen=True)
class Drawn:
    """A float32 graph whose sites have no defaults yet, and the facts of running it."""

    model: ir.Model
    sites: dict[str, Shape]
    decoder: DecoderFacts | None = None
    encoder: EncoderFacts | None = None


def draw_native(base: Base, options: ExportOptions, weights: Tensors) -> Drawn:
    """Write the graph of a decoder of a known family with these weights."""
    graph = Graph(weights, options.variant, options.sites)
    dimensions = FAMILIES[base.model.config.model_type](graph, base.model.config)
    return Drawn(graph.model(base.name, {}), graph.sites(), _facts(dimensions, Marks.of(base.tokenizer)))


def _draw(base: Base, options: ExportOptions) -> Drawn:
    backend = backend_of(base, options)
    if base.labels is not None:
        from fedpeft.export.encoder import trace_encoder  # imports torch's exporter, which takes a second

        model, graph, facts = trace_encoder(base, options)
        return Drawn(model, graph.sites(), encoder=facts)
    if backend == "torch":
        from fedpeft.export.torch_decoder import trace_decoder

        model, graph, dimensions = trace_decoder(base, options)
        return Drawn(model, graph.sites(), _facts(dimensions, Marks.of(base.tokenizer)))
    return draw_native(base, options, Weights(base.folder))


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


def backend_of(base: Base, options: ExportOptions | None = None) -> Backend:
    """Return who makes a base's graph.

    Raises
    ------
    BaseError
        When it is neither a language model nor an encoder, or the native backend is asked for and has no graph for it.
    """
    family, wanted = str(base.model.config.model_type), options.backend if options else None
    if base.labels is None and type(base.model).__name__ not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        raise BaseError("base architecture", family, "a language model or an encoder", "this one runs with torch only")
    known = base.labels is None and family in FAMILIES
    if wanted == "native" and not known:
        found = family if base.labels is None else f"{family}, a classifier"
        raise BaseError(
            "base architecture", found, f"{', '.join(FAMILIES)} that writes", "export it with backend torch"
        )
    return wanted or ("native" if known else "torch")
