"""A person's adapter as a bundle: ``.onnx_adapter`` for devices, and peft's own layout beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from pydantic import JsonValue

from fedpeft.adapters import Adapter
from fedpeft.adapters.factors import module_scaling
from fedpeft.device.bundle import ADAPTER, hash_files, seal
from fedpeft.device.manifest import Manifest, Shape
from fedpeft.errors import AdapterError, BundleError
from fedpeft.export.folder import whole_folder
from fedpeft.signing.signature import SigningKey, public_bytes

_TENSOR = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<part>[AB])\.weight")

_VARIANTS = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "modules_to_save",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
)
"""Settings with which peft computes something else from A and B, or trains more than them."""

Inputs = dict[str, NDArray[np.float32]]


def export_adapter(
    adapter: Adapter,
    out: Path,
    *,
    owner: str,
    base: Manifest,
    key: SigningKey,
    details: Mapping[str, JsonValue] | None = None,
) -> Manifest:
    """Write an adapter bundle that only its owner's account can read.

    Parameters
    ----------
    adapter : Adapter
        A LoRA, of any rank in each module.
    out : Path
        The bundle's folder; replaced if it is one already.
    owner : str
        Whose adapter it is.
    base : Manifest
        Of the base bundle it is to run on.
    key : Ed25519PrivateKey
        Whose signature the bundle carries.
    details : mapping, optional
        Facts for people, kept in the manifest.

    Returns
    -------
    Manifest

    Raises
    ------
    AdapterError
        When the adapter is not a LoRA, of another base, or has a tensor the graph has no place for.
    BundleError
        When the folder cannot be written; nothing half-written is left.
    """
    adapter.require_base(base.base_fingerprint)
    inputs = lora_inputs(adapter)
    _require_sites(inputs, base.tensors)
    with whole_folder(out, mode=0o700) as draft:
        adapter.save(draft)
        write_onnx_adapter(inputs, draft / ADAPTER)
        manifest = Manifest(
            kind="adapter",
            base_fingerprint=adapter.base,
            signer=public_bytes(key).hex(),
            name=owner,
            method="lora",
            files=hash_files(draft),
            tensors={name: array.shape for name, array in inputs.items()},
            details={"parameters": adapter.schema.size, **(details or {})},
        )
        seal(draft, manifest, key)
    return manifest


def lora_inputs(adapter: Adapter) -> Inputs:
    """Turn a LoRA into the graph's inputs.

    Returns
    -------
    dict of str to ndarray of float32
        ``<module>.lora_A.weight`` of shape (in, rank), and ``<module>.lora_B.weight`` of shape (rank, out)
        multiplied by the adapter's scaling.

    Raises
    ------
    AdapterError
        When it is not a plain LoRA, or its numbers are not finite.
    """
    require_plain(adapter.config)
    if not np.isfinite(adapter.vector).all():
        raise AdapterError("adapter", "NaN or infinity", "finite tensors")
    inputs = {}
    for name, tensor in adapter.tensors().items():
        match = _TENSOR.fullmatch(name)
        if match is None:
            raise AdapterError(f"adapter tensor {name}", "no LoRA matrix", "lora_A or lora_B of a linear layer")
        module = match["module"]
        factor = np.float32(1)
        if match["part"] == "B":
            factor = np.float32(module_scaling(adapter.config, module, tensor.shape[1]))
        inputs[name.removeprefix("base_model.model.")] = np.ascontiguousarray(tensor.T * factor)
    return inputs


def write_onnx_adapter(inputs: Inputs, path: Path) -> None:
    """Write onnxruntime's adapter format and read it back.

    Raises
    ------
    BundleError
        When the file does not hold what was to be written.
    """
    # The format keeps bare pointers to the arrays: they must outlive the writing, or it silently stores
    # whatever took their place in memory.
    values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in inputs.items()}
    content = ort.AdapterFormat()
    content.set_adapter_version(1)
    content.set_model_version(1)
    content.set_parameters(values)
    try:
        content.export_adapter(str(path))
        written = ort.AdapterFormat.read_adapter(str(path)).get_parameters()
    except RuntimeError as error:
        remedy = "free some space or choose another folder"
        raise BundleError(path.name, "an incomplete file", "a place to write", remedy) from error
    for name, array in inputs.items():
        if name not in written or not np.array_equal(written[name].numpy(), array):
            raise BundleError(f"{path.name} tensor {name}", "other numbers", "those that were written")


def require_plain(config: Mapping[str, Any]) -> None:
    """Refuse what would need other sites in the graph, or would be lost."""
    kind = config.get("peft_type")
    if kind != "LORA":
        raise AdapterError("adapter type", kind, "LORA", "other methods cannot be exported yet")
    if config.get("bias", "none") != "none":
        raise AdapterError("adapter bias", config["bias"], "none", "export a plain LoRA")
    for field in _VARIANTS:
        if config.get(field):
            raise AdapterError(f"adapter {field}", config[field], "nothing", "export a plain LoRA")


def _require_sites(inputs: Inputs, sites: Mapping[str, Shape]) -> None:
    if not inputs:
        raise AdapterError("adapter tensors", "none", "at least one")
    for name, array in inputs.items():
        site = sites.get(name)
        if site is None:
            raise AdapterError(f"adapter tensor {name}", array.shape, "a linear layer of the base")
        if len(site) != array.ndim or any(s not in (None, n) for s, n in zip(site, array.shape, strict=True)):
            raise AdapterError(f"adapter tensor {name}", array.shape, f"shape {site}, None being the rank")
