"""A person's adapter as a bundle: what it fills in the graph, for devices, and its own layout beside it.

==============================  ===============================================================
``adapter.onnx_adapter``        values for sites, in float32 or float16; absent of a mere prefix
``prefix.onnx_adapter``         keys and values that come before every text, where there are any
``adapter_config.json``         and ``adapter_model.safetensors``: as trained, for torch
==============================  ===============================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from pydantic import JsonValue

from fedpeft.adapters import Adapter
from fedpeft.adapters.adapter import stamp
from fedpeft.adapters.layout import DENSE, encode, write_folder
from fedpeft.device.bundle import ADAPTER, PREFIX, hash_files, seal
from fedpeft.device.loaded import write_values
from fedpeft.device.manifest import Digest, Manifest, Shape
from fedpeft.errors import AdapterError, BundleError
from fedpeft.export.encoder_head import narrowed
from fedpeft.export.fill import Filling, Ground, fill
from fedpeft.export.folder import whole_folder
from fedpeft.export.options import site_kind
from fedpeft.methods.attachment import OWN_TYPE
from fedpeft.signing.signature import SigningKey, public_bytes

Numbers = Literal["float32", "float16"]

Arrays = Mapping[str, NDArray[Any]]


def export_adapter(
    adapter: Adapter,
    out: Path,
    *,
    owner: str,
    base: Manifest,
    key: SigningKey,
    ground: Ground | None = None,
    numbers: Numbers = "float32",
    scenario: Digest | None = None,
    privacy: Mapping[str, JsonValue] | None = None,
    labels: tuple[str, ...] = (),
    classes: slice = slice(None),
    context: int | None = None,
    details: Mapping[str, JsonValue] | None = None,
) -> Manifest:
    """Write an adapter bundle that only its owner's account can read.

    Parameters
    ----------
    adapter : Adapter
        Of any method that has sites; of any rank in each module.
    out : Path
        The bundle's folder; replaced if it is one already.
    owner : str
        Whose adapter it is.
    base : Manifest
        Of the base bundle it is to run on.
    key : Ed25519PrivateKey
        Whose signature the bundle carries.
    ground : Ground, optional
        The base itself, for methods whose file does not say all; see :func:`fedpeft.export.fill.fill`.
    numbers : {"float32", "float16"}
        What devices get. Half as many bytes travel with float16; they compute with float32 all the same.
    scenario : str, optional
        Digest of the scenario it was trained by.
    privacy : mapping, optional
        What its training spent.
    labels : tuple of str
        What a classifier's head tells apart, in order, all of its classes or those of ``classes``.
    classes : slice, optional
        Which of its head's classes are its owner's.
    context : int, optional
        Tokens that it reads of a text, when it ranks replies.
    details : mapping, optional
        Facts for people, kept in the manifest.

    Returns
    -------
    Manifest

    Raises
    ------
    AdapterError
        When its method has no sites, it is of another base, its numbers do not fit into float16, or the graph lacks a
        place for one.
    BundleError
        When the folder cannot be written; nothing half-written is left.
    """
    adapter.require_base(base.base_fingerprint)
    filling = fill(adapter, ground)
    filling = replace(filling, inputs=narrowed(filling.inputs, classes))
    require_sites(filling, base.tensors)
    values: Arrays = _half(filling) if numbers == "float16" else filling.inputs
    with whole_folder(out, mode=0o700) as draft:
        _keep(adapter, draft, numbers)
        if values:
            write_onnx_adapter(values, draft / ADAPTER)
        if filling.past:
            write_onnx_adapter(filling.past, draft / PREFIX)
        manifest = Manifest(
            kind="adapter",
            base_fingerprint=adapter.base,
            signer=public_bytes(key).hex(),
            name=owner,
            method=method_name(adapter.config),
            precision=numbers,
            files=hash_files(draft),
            tensors={name: array.shape for name, array in values.items()},
            labels=labels,
            context=context,
            scenario=scenario,
            privacy=dict(privacy) if privacy is not None else None,
            details={"parameters": adapter.schema.size, **(details or {})},
        )
        seal(draft, manifest, key)
    return manifest


def _keep(adapter: Adapter, folder: Path, numbers: Numbers) -> None:
    """Write an adapter in its own layout, which torch and peft open, in these numbers."""
    tensors = {name: tensor.astype(numbers) for name, tensor in adapter.tensors().items()}
    write_folder(folder, DENSE, encode(tensors, stamp(adapter.base, adapter.schema)), adapter.config)


def write_onnx_adapter(values: Arrays, path: Path) -> None:
    """Write onnxruntime's adapter format and read it back.

    Raises
    ------
    BundleError
        When the file does not hold what was to be written.
    """
    # The format keeps bare pointers to the arrays: they must outlive the writing, or it silently stores
    # whatever took their place in memory.
    held = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in values.items()}
    try:
        write_values(held, path)
        written = ort.AdapterFormat.read_adapter(str(path)).get_parameters()
    except RuntimeError as error:
        remedy = "free some space or choose another folder"
        raise BundleError(path.name, "an incomplete file", "a place to write", remedy) from error
    for name, array in values.items():
        if name not in written or not np.array_equal(written[name].numpy(), array):
            raise BundleError(f"{path.name} tensor {name}", "other numbers", "those that were written")


def method_name(config: Mapping[str, Any]) -> str:
    """Return what a scenario calls the method of an adapter, or peft's name for it."""
    if config.get("peft_type") == OWN_TYPE:
        return str(config["method"]["name"])
    return "dora" if config.get("use_dora") else str(config.get("peft_type")).lower()


def require_sites(filling: Filling, sites: Mapping[str, Shape]) -> None:
    """Refuse what a graph has no place for.

    Raises
    ------
    AdapterError
        Naming the first tensor, and what its base would have to be exported with.
    """
    if not filling.inputs and not filling.past:
        raise AdapterError("adapter tensors", "none", "at least one")
    for name, array in filling.inputs.items():
        site = sites.get(name)
        if site is None:
            kind = site_kind(name)
            missing = kind is not None and not any(site_kind(other) == kind for other in sites)
            remedy = f"export the base with --sites lora,{kind}" if missing else ""
            raise AdapterError(f"adapter tensor {name}", array.shape, "a site of the base's graph", remedy)
        if len(site) != array.ndim or any(s not in (None, n) for s, n in zip(site, array.shape, strict=True)):
            raise AdapterError(f"adapter tensor {name}", array.shape, f"shape {site}, None being the adapter's choice")


def _half(filling: Filling) -> dict[str, NDArray[np.float16]]:
    largest = np.finfo(np.float16).max
    for name, array in filling.inputs.items():
        if np.abs(array).max(initial=0) > largest:
            raise AdapterError(f"adapter tensor {name}", float(np.abs(array).max()), f"at most {largest} in float16")
    return {name: array.astype(np.float16) for name, array in filling.inputs.items()}
