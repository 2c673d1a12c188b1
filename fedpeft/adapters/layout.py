"""What lies in an adapter's folder, and how many bytes that is before it is written.

==================================  ====================================================================
``adapter_config.json``             the method's configuration, in peft's words
``adapter_model.safetensors``       the tensors in float32: peft opens this one
``adapter_model.int8.safetensors``  codes and scales instead (:mod:`~fedpeft.adapters.quantize`); also int4
``adapter_model.sparse.safetensors``  values and places instead (:mod:`~fedpeft.adapters.sparse`)
==================================  ====================================================================

A folder holds one of the weight files. The format is safetensors' own: 8 bytes of length, a JSON header, the
arrays. It is written here because the library orders several metadata entries at random and cannot say a size
without the numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpeft.errors import AdapterError
from fedpeft.files import private_folder, write_private

CONFIG = "adapter_config.json"
DENSE = "float32"
WEIGHTS = {
    DENSE: "adapter_model.safetensors",
    "int8": "adapter_model.int8.safetensors",
    "int4": "adapter_model.int4.safetensors",
    "sparse": "adapter_model.sparse.safetensors",
}
"""The weight file of each form an adapter is stored in."""

Shapes = Mapping[str, tuple[str, tuple[int, ...]]]
"""Tensor name -> safetensors' name of the type, and shape."""

_TYPES = {"float32": "F32", "float16": "F16", "uint32": "U32", "uint16": "U16", "uint8": "U8"}
_WIDTHS = {"F32": 4, "F16": 2, "U32": 4, "U16": 2, "U8": 1}


def form_of(folder: Path) -> str:
    """Tell in which form a folder holds its adapter.

    Raises
    ------
    AdapterError
        When it holds none.
    """
    for form, name in WEIGHTS.items():
        if (folder / name).is_file():
            return form
    raise AdapterError(f"adapter folder {folder}", "no weights", WEIGHTS[DENSE])


def write_folder(folder: Path, form: str, weights: bytes, config: Mapping[str, Any]) -> None:
    """Write weights and configuration, readable by the owner only, and drop other forms that lay there."""
    private_folder(folder)
    write_private(folder / CONFIG, config_bytes(config))
    write_private(folder / WEIGHTS[form], weights)
    for other in WEIGHTS.keys() - {form}:
        (folder / WEIGHTS[other]).unlink(missing_ok=True)


def config_bytes(config: Mapping[str, Any]) -> bytes:
    """Return the bytes of ``adapter_config.json``; equal configurations give equal bytes."""
    return json.dumps(dict(config), indent=2, sort_keys=True).encode()


def types(arrays: Mapping[str, NDArray[Any]]) -> Shapes:
    """Return what :func:`encoded_bytes` asks of arrays that exist."""
    return {name: (_TYPES[array.dtype.name], array.shape) for name, array in arrays.items()}


def encode(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """Return the bytes of a safetensors file.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Of float32, uint32, uint16 or uint8.
    metadata : mapping of str to str
    """
    shapes = types(arrays)
    parts = [np.ascontiguousarray(arrays[name]).astype(arrays[name].dtype.newbyteorder("<")) for name in _order(shapes)]
    return b"".join([_header(shapes, metadata), *(part.tobytes() for part in parts)])


def encoded_bytes(shapes: Shapes, metadata: Mapping[str, str]) -> int:
    """Return how long :func:`encode` will be, from types and shapes alone."""
    return len(_header(shapes, metadata)) + sum(_WIDTHS[kind] * prod(shape) for kind, shape in shapes.values())


def metadata_of(path: Path) -> dict[str, str]:
    """Read the string map in a safetensors header, which the library's numpy reader does not return.

    Raises
    ------
    OSError, ValueError
        When the file cannot be read or is no safetensors file.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(min(length, path.stat().st_size)))
    found = header.get("__metadata__", {}) if isinstance(header, dict) else {}
    return dict(found)


def _order(shapes: Shapes) -> list[str]:
    """Wide types first, so that every array begins at a multiple of its width."""
    return sorted(shapes, key=lambda name: (-_WIDTHS[shapes[name][0]], name))


def _header(shapes: Shapes, metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    start = 0
    for name in _order(shapes):
        kind, shape = shapes[name]
        end = start + _WIDTHS[kind] * prod(shape)
        entries[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
