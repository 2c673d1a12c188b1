"""An adapter: what a method learnt on one base. Saved in peft's own layout, so peft opens it and we open peft's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file

from fedpeft.adapters.layout import (
    CONFIG,
    DENSE,
    WEIGHTS,
    config_bytes,
    encode,
    encoded_bytes,
    form_of,
    metadata_of,
    write_folder,
)
from fedpeft.adapters.schema import Schema, Vector
from fedpeft.errors import AdapterError

_FINGERPRINT = "fedpeft_base_fingerprint"


@dataclass(frozen=True)
class Adapter:
    """Tensors, the method's configuration, and the base they belong to.

    Parameters
    ----------
    schema : Schema
        Names and shapes of the tensors.
    vector : ndarray of float32, shape (schema.size,)
        The tensors, flat.
    config : mapping
        The method's configuration as peft writes it to ``adapter_config.json``.
    base : str
        Fingerprint of the base it was trained on.
    """

    schema: Schema
    vector: Vector
    config: Mapping[str, Any]
    base: str

    def tensors(self) -> dict[str, Vector]:
        """Return the tensors by name."""
        return self.schema.unflatten(self.vector)

    @property
    def nbytes(self) -> int:
        """Bytes of the float32 tensors."""
        return int(self.vector.nbytes)

    @property
    def file_bytes(self) -> int:
        """Bytes of the folder's two files, before they are written."""
        shapes = {name: ("F32", shape) for name, shape in self.schema.shapes}
        return encoded_bytes(shapes, stamp(self.base, self.schema)) + len(config_bytes(self.config))

    def require_base(self, fingerprint: str) -> None:
        """Refuse to be used on another base.

        Raises
        ------
        AdapterError
            When ``fingerprint`` is not the one this adapter was trained on.
        """
        if fingerprint != self.base:
            raise AdapterError(
                "adapter base",
                f"{self.base[:12]}…",
                f"the base {fingerprint[:12]}…",
                "load the base it was trained on, or train it again on this one",
            )

    def save(self, folder: Path) -> None:
        """Write ``adapter_model.safetensors`` and ``adapter_config.json``, readable by the owner only."""
        write_folder(folder, DENSE, encode(self.tensors(), stamp(self.base, self.schema)), self.config)

    @classmethod
    def load(cls, folder: Path, base: str | None = None) -> Adapter:
        """Read an adapter that fedpeft or peft saved, in whichever form.

        Parameters
        ----------
        folder : Path
        base : str, optional
            Fingerprint to assume when the file carries none, as peft's own do not.

        Raises
        ------
        AdapterError
            When files are missing or damaged, or the base is unknown or another.
        """
        config = read_config(folder)
        if form_of(folder) != DENSE:
            from fedpeft.adapters.forms import open_packed

            return open_packed(folder, base).dense()
        path = folder / WEIGHTS[DENSE]
        try:
            # Through torch, because numpy has no bfloat16 and peft saves what it trained.
            tensors = {name: t.float().numpy() for name, t in load_file(path).items()}
            recorded, context = unstamp(metadata_of(path))
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise AdapterError(f"adapter folder {folder}", str(error), f"readable {CONFIG} and {path.name}") from error
        if not (recorded or base):
            raise AdapterError(f"adapter folder {folder}", "no base fingerprint", "one", "name the base")
        schema = Schema.of({name: t.shape for name, t in tensors.items()}, context)
        adapter = cls(schema, schema.flatten(tensors), config, str(recorded or base))
        if not np.isfinite(adapter.vector).all():
            raise AdapterError(f"adapter folder {folder}", "NaN or infinity", "finite tensors")
        if base is not None:
            adapter.require_base(base)
        return adapter


def read_config(folder: Path) -> dict[str, Any]:
    """Read a folder's ``adapter_config.json``.

    Raises
    ------
    AdapterError
        When it is missing or no JSON object.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AdapterError(f"adapter folder {folder}", str(error), f"a readable {CONFIG}") from error
    if not isinstance(config, dict):
        raise AdapterError(f"adapter folder {folder}", config, f"a JSON object in {CONFIG}")
    return config


def stamp(base: str, schema: Schema) -> dict[str, str]:
    """Return the header entry that binds a weight file to its base and its frozen context."""
    return {_FINGERPRINT: f"{base}:{schema.context}" if schema.context else base}


def unstamp(metadata: Mapping[str, str]) -> tuple[str, str]:
    """Return base and context from a weight file's header; empty where it names none."""
    base, _, context = metadata.get(_FINGERPRINT, "").partition(":")
    return base, context
