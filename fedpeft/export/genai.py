"""A folder that onnxruntime-genai generates from: a base bundle's graph, and people's adapters beside it.

==================================  ==============================================================
``model.onnx``, ``….data``          the bundle's own
``genai_config.json``               how to run it
``tokenizer.json`` and its kin      the base's
``<owner>.onnx_adapter``            for ``og.Adapters``, in float32
``manifest.json``, ``manifest.sig`` of the base bundle, to tell where the graph comes from
==================================  ==============================================================

>>> model = og.Model(folder)
>>> adapters = og.Adapters(model)
>>> adapters.load("ada.onnx_adapter", "ada")
>>> generator = og.Generator(model, og.GeneratorParams(model))
>>> generator.set_active_adapter(adapters, "ada")

onnxruntime-genai checks nothing: everything is verified here, as it is copied. Native graphs share one buffer between
past and present keys; traced ones concatenate them, and must not.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir

from fedpeft.base import Base, load_base
from fedpeft.device.bundle import GRAPH, PREFIX, Bundle
from fedpeft.device.folders import adapter_folder, base_folder, users
from fedpeft.device.loaded import load_adapter, write_values
from fedpeft.device.manifest import MANIFEST, SIGNATURE, DecoderFacts
from fedpeft.errors import BundleError
from fedpeft.export.folder import whole_folder
from fedpeft.export.settings import read_scenario

CONFIG = "genai_config.json"

_TOKENIZER_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt")


def export_genai(
    base: Base, bundle: Path, adapters: Mapping[str, Path], out: Path, trusted: Collection[str] | None = None
) -> Path:
    """Write a folder for onnxruntime-genai.

    Parameters
    ----------
    base : Base
        For its tokenizer and sizes.
    bundle : Path
        Its base bundle, of the variant ``optional``.
    adapters : mapping of str to Path
        Adapter bundles by owner.
    out : Path
        Replaced if it is such a folder already.
    trusted : collection of str, optional
        Public keys of signers that are believed; the base bundle's own when not given.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    BundleError
        When a bundle is not whole, not trusted, of another base, or takes what onnxruntime-genai does not give. Nothing
        half-written is left.
    """
    opened = Bundle.open(bundle, "base", trusted)
    opened.verify()
    opened.require_base(base.fingerprint)
    manifest = opened.manifest
    if manifest.decoder is None or manifest.variant != "optional":
        found = manifest.variant if manifest.decoder else "an encoder"
        raise BundleError(f"{bundle} variant", found, "a decoder's bundle of variant 'optional'")
    believed = trusted if trusted is not None else [manifest.signer]
    shared = any(node.op_type == "GroupQueryAttention" for node in ir.load(bundle / GRAPH).graph)
    with whole_folder(out, mode=0o700) as draft:
        for name in (*manifest.files, MANIFEST, SIGNATURE):
            shutil.copyfile(bundle / name, draft / name)
        for path in (base.folder / name for name in _TOKENIZER_FILES):
            if path.is_file():
                shutil.copyfile(path, draft / path.name)
        settings = _settings(base, manifest.decoder, shared=shared)
        (draft / CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        for owner, folder in adapters.items():
            loaded = load_adapter(folder, manifest.base_fingerprint, manifest.tensors, believed)
            if loaded.prefix:
                raise BundleError(f"{folder}/{PREFIX}", "a prefix", "an adapter of sites", "genai takes no prefixes")
            write_values(loaded.tensors(), draft / f"{owner}.onnx_adapter")
    return out


def export_run_genai(run: Path) -> Path:
    """Write ``<run>/device/genai`` from a run's bundles.

    Raises
    ------
    RunError, BundleError
        When the run was not exported, or its bundles are not for onnxruntime-genai.
    """
    named = read_scenario(run)["base"]
    bundle = base_folder(run)
    base = load_base(str(named["name"]), str(named["dtype"]))
    adapters = {user: adapter_folder(run, user) for user in users(run)}
    return export_genai(base, bundle, adapters, bundle.parent / "genai")


def _settings(base: Base, facts: DecoderFacts, *, shared: bool) -> dict[str, Any]:
    config = base.model.config.get_text_config(decoder=True)
    ends = list(facts.end) or [facts.pad]
    return {
        "model": {
            "type": "llama",  # to genai a decoder-only graph with these inputs, whatever its architecture
            "bos_token_id": facts.start[0] if facts.start else ends[0],
            "eos_token_id": ends,
            "pad_token_id": facts.pad,
            "context_length": facts.context,
            "vocab_size": facts.vocabulary,
            "decoder": {
                "filename": GRAPH,
                "session_options": {"log_severity_level": 3, "provider_options": []},
                "hidden_size": config.hidden_size,
                "num_attention_heads": config.num_attention_heads,
                "num_key_value_heads": facts.kv_heads,
                "num_hidden_layers": facts.layers,
                "head_size": facts.head_dim,
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
        },
        "search": {
            "do_sample": False,
            "max_length": facts.context,
            "num_beams": 1,
            "past_present_share_buffer": shared,
        },
    }
