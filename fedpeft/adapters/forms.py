"""Open an adapter folder in whichever packed form it holds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from fedpeft.adapters.adapter import read_config, unstamp
from fedpeft.adapters.layout import WEIGHTS, form_of, metadata_of
from fedpeft.adapters.packed import PACKED, Known, Packed
from fedpeft.adapters.quantize import QuantizedAdapter
from fedpeft.adapters.schema import Schema
from fedpeft.adapters.sparse import SparseAdapter
from fedpeft.errors import AdapterError

READERS: dict[str, type[Packed]] = {"int8": QuantizedAdapter, "int4": QuantizedAdapter, "sparse": SparseAdapter}


def open_packed(folder: Path, base: str | None = None) -> Packed:
    """Read a folder that holds a packed form.

    Parameters
    ----------
    folder : Path
    base : str, optional
        Fingerprint of the base it must belong to.

    Raises
    ------
    AdapterError
        When files are missing or damaged, or the base is another.
    """
    form = form_of(folder)
    if form not in READERS:
        raise AdapterError(f"adapter folder {folder}", form, " or ".join(READERS))
    path, config = folder / WEIGHTS[form], read_config(folder)
    try:
        header = metadata_of(path)
        packed = json.loads(header[PACKED])
        recorded, context = unstamp(header)
        shapes = {str(name): tuple(int(n) for n in shape) for name, shape in packed["tensors"]}
        known = Known(Schema.of(shapes, context), config, recorded)
        found = READERS[form].read(known, load(path.read_bytes()), packed["settings"])
        adapter = found.dense()
    except (OSError, ValueError, KeyError, TypeError, IndexError, SafetensorError) as error:
        raise AdapterError(f"adapter folder {folder}", repr(error), f"a whole {path.name}") from error
    if not np.isfinite(adapter.vector).all():
        raise AdapterError(f"adapter folder {folder}", "NaN or infinity", "finite tensors")
    if base is not None:
        adapter.require_base(base)
    return found
