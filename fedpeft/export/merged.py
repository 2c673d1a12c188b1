"""One person's model in one file: their adapter is part of the weights, and nothing can be swapped.

    W' = out_scale * (W + (A B)ᵀ) * in_scale,   bias' = out_scale * bias + bias_delta       a linear layer

What is no change of a weight, biases of norms and bottlenecks, becomes constants of the graph. So every method that has
sites can be merged, except prompts and prefixes, which come before the text; and so can two that have none because
their change is whole matrices: ``full`` and ``diff_pruning``.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from fedpeft.adapters import Adapter
from fedpeft.device.manifest import Manifest
from fedpeft.device.sites import neutral
from fedpeft.errors import AdapterError, BaseError
from fedpeft.export.base import backend_of, draw_native, write_base
from fedpeft.export.fill import Filling, Ground, fill
from fedpeft.export.fill.filling import PREFIX
from fedpeft.export.fill.table import method_of
from fedpeft.export.options import ExportOptions, module_at, site_kind
from fedpeft.export.weights import Tensors
from fedpeft.methods.attachment import OWN_TYPE
from fedpeft.methods.diff_pruning import DiffPruning
from fedpeft.methods.full import Full
from fedpeft.signing.signature import SigningKey

Arrays = dict[str, NDArray[np.float32]]

_OF_LINEAR = (".lora_A.weight", ".lora_B.weight", ".in_scale", ".out_scale", ".bias_delta")


def export_merged(
    adapter: Adapter, out: Path, *, owner: str, ground: Ground, key: SigningKey, options: ExportOptions | None = None
) -> Manifest:
    """Write a base bundle that is one person's model.

    Parameters
    ----------
    adapter : Adapter
    out : Path
        The bundle's folder, which only its owner's account can read; replaced if it is a bundle already.
    owner : str
    ground : Ground
        The base.
    key : Ed25519PrivateKey
    options : ExportOptions, optional
        Its precision; variant and sites mean nothing here.

    Returns
    -------
    Manifest
        Without sites, and with a fingerprint of its own: no adapter fits.

    Raises
    ------
    AdapterError
        When the adapter is of another base, or its method does not change weights.
    BaseError
        When the base's graph is traced by torch.
    BundleError
        When the folder cannot be written.
    """
    base = ground.base
    adapter.require_base(base.fingerprint)
    if backend_of(base) != "native":
        raise BaseError("base architecture", base.model.config.model_type, "one with a native graph to merge into")
    filling, whole = _changes(adapter, ground)
    if filling.past or "soft_prompt" in filling.inputs:
        remedy = "export it as an adapter of the shared base"
        raise AdapterError("adapter", "a prompt or prefix", "a method that changes the base", remedy)
    weights = Changed(ground.weights, filling.inputs, whole)
    fixed = {name: array for name, array in filling.inputs.items() if name not in weights.merged}
    kinds = frozenset(kind for name in fixed if (kind := site_kind(name)))
    options = replace(options or ExportOptions(), variant="optional", sites=kinds)
    drawn = draw_native(base, options, weights)
    # Places of a kind that this adapter leaves alone are filled with nothing.
    fixed |= {name: neutral(name, shape) for name, shape in drawn.sites.items() if name not in fixed}
    identity = sha256(f"{base.fingerprint}:{adapter.schema.digest}".encode() + adapter.vector.tobytes()).hexdigest()
    details: dict[str, JsonValue] = {"architecture": base.model.config.model_type, "merged": owner}
    return write_base(drawn, base, identity, out, key=key, options=options, details=details, fixed=fixed, mode=0o700)


class Changed:
    """A base's tensors with an adapter merged into them, as they are read.

    Parameters
    ----------
    weights : Tensors
    inputs : dict of str to ndarray of float32
        What the adapter fills.
    whole : dict of str to ndarray of float32
        Tensors that take the place of the base's.

    Attributes
    ----------
    merged : set of str
        The inputs that are in the weights now.

    Raises
    ------
    AdapterError
        When the base has no tensor for an input or in the place of another.
    """

    def __init__(self, weights: Tensors, inputs: Arrays, whole: Arrays) -> None:
        self._weights, self._inputs, self._whole = weights, inputs, whole
        self.merged = {name for name in inputs if name.endswith(_OF_LINEAR) and self._is_linear(module_at(name))}
        for name, array in whole.items():
            if name not in weights or weights.shape(name) != array.shape:
                raise AdapterError(f"adapter tensor {name}", array.shape, "a tensor of the base")
        for name in inputs.keys() - self.merged:
            if name.endswith(_OF_LINEAR) and not name.endswith(".bias_delta"):
                raise AdapterError(f"adapter tensor {name}", inputs[name].shape, "a linear layer of the base")

    def __contains__(self, name: str) -> bool:
        module, _, part = name.rpartition(".")
        return name in self._weights or (part == "bias" and f"{module}.bias_delta" in self.merged)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape without reading it."""
        if name not in self._weights and name in self:
            return self._inputs[f"{name}_delta"].shape
        return self._weights.shape(name)

    def read(self, name: str) -> NDArray[np.float32]:
        """Return a tensor with the adapter in it."""
        module, _, part = name.rpartition(".")
        if part == "bias" and name in self:
            return self._bias(name, module)
        tensor = self._whole[name] if name in self._whole else self._weights.read(name)
        return self._weight(tensor, module) if part == "weight" and self._is_linear(module) else tensor

    def _weight(self, weight: NDArray[np.float32], module: str) -> NDArray[np.float32]:
        exact = weight.astype(np.float64)
        down, up = (self._inputs.get(f"{module}.lora_{part}.weight") for part in "AB")
        if down is not None and up is not None:
            exact = exact + (down.astype(np.float64) @ up).T
        if (scale := self._inputs.get(f"{module}.out_scale")) is not None:
            exact = exact * scale[:, None]
        if (scale := self._inputs.get(f"{module}.in_scale")) is not None:
            exact = exact * scale
        return exact.astype(np.float32)

    def _bias(self, name: str, module: str) -> NDArray[np.float32]:
        scale, delta = self._inputs.get(f"{module}.out_scale"), self._inputs.get(f"{module}.bias_delta")
        bias = np.zeros(self.shape(name), np.float32)
        if name in self._weights:
            bias = self._whole[name] if name in self._whole else self._weights.read(name)
        scaled = bias if scale is None else bias * scale
        return scaled if delta is None else scaled + delta

    def _is_linear(self, module: str) -> bool:
        return f"{module}.weight" in self._weights and len(self._weights.shape(f"{module}.weight")) == 2


def _changes(adapter: Adapter, ground: Ground) -> tuple[Filling, Arrays]:
    """Return what an adapter fills, and the tensors that it replaces."""
    method = method_of(adapter.config) if adapter.config.get("peft_type") == OWN_TYPE else None
    if isinstance(method, Full):
        return Filling({}), {name.removeprefix(PREFIX): tensor for name, tensor in adapter.tensors().items()}
    if isinstance(method, DiffPruning):
        adapter = ground.folded(method, adapter)
    return fill(adapter, ground), {}
