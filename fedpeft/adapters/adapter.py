"""An adapter: what a method learnt on one base. Saved in peft's own layout, so peft opens it and we open peft's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save
from safetensors.torch import load_file

from fedpeft.adapters.schema import Schema, Vector
from fedpeft.errors import AdapterError
from fedpeft.files import private_folder, write_private

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
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
        private_folder(folder)
        # One metadata entry: safetensors writes several in no fixed order, and equal adapters shall be equal files.
        tensors = {name: np.ascontiguousarray(t) for name, t in self.tensors().items()}
        stamp = f"{self.base}:{self.schema.context}" if self.schema.context else self.base
        write_private(folder / WEIGHTS, save(tensors, {_FINGERPRINT: stamp}))
        write_private(folder / CONFIG, json.dumps(dict(self.config), indent=2, sort_keys=True).encode())

    @classmethod
    def load(cls, folder: Path, base: str | None = None) -> Adapter:
        """Read an adapter that fedpeft or peft saved.

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
        try:
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            # Through torch, because numpy has no bfloat16 and peft saves what it trained.
            tensors = {name: t.float().numpy() for name, t in load_file(folder / WEIGHTS).items()}
            recorded, _, context = _metadata(folder / WEIGHTS).get(_FINGERPRINT, "").partition(":")
        except (OSError, ValueError, SafetensorError) as error:
            raise AdapterError(f"adapter folder {folder}", str(error), f"readable {CONFIG} and {WEIGHTS}") from error
        if not isinstance(config, dict):
            raise AdapterError(f"adapter folder {folder}", config, f"a JSON object in {CONFIG}")
        if not (recorded or base):
            raise AdapterError(f"adapter folder {folder}", "no base fingerprint", "one", "name the base")
        schema = Schema.of({name: t.shape for name, t in tensors.items()}, context)
        adapter = cls(schema, schema.flatten(tensors), config, str(recorded or base))
        if not np.isfinite(adapter.vector).all():
            raise AdapterError(f"adapter folder {folder}", "NaN or infinity", "finite tensors")
        if base is not None:
            adapter.require_base(base)
        return adapter


def _metadata(path: Path) -> dict[str, str]:
    """Read the string map in a safetensors header, which the numpy reader does not return."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return dict(header.get("__metadata__", {}))
