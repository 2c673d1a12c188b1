"""Adapters stored in fewer bytes than float32 takes: the two forms share how they lie in a folder.

The weight file holds the form's arrays; its header names the base, the tensors and the form's settings. peft does
not read these; :meth:`Packed.dense` gives back an adapter in peft's own layout.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fedpeft.adapters.adapter import Adapter, stamp
from fedpeft.adapters.layout import config_bytes, encode, encoded_bytes, types, write_folder
from fedpeft.adapters.schema import Schema

PACKED = "fedpeft_packed"

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Packed(ABC):
    """What every packed adapter knows.

    Parameters
    ----------
    schema : Schema
    config : mapping
        The method's configuration as peft writes it.
    base : str
        Fingerprint of the base it was trained on.
    """

    schema: Schema
    config: Mapping[str, Any]
    base: str

    @property
    @abstractmethod
    def form(self) -> str:
        """The key of its weight file in :data:`~fedpeft.adapters.layout.WEIGHTS`."""

    @abstractmethod
    def arrays(self) -> Arrays:
        """Return what the weight file holds."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return what else is needed to read the arrays."""

    @abstractmethod
    def dense(self) -> Adapter:
        """Return the adapter in float32."""

    @classmethod
    @abstractmethod
    def read(cls, known: Known, arrays: Arrays, settings: Mapping[str, Any]) -> Packed:
        """Make it from what a folder holds.

        Raises
        ------
        KeyError, ValueError, TypeError
            When arrays and settings do not fit each other.
        """

    @property
    def file_bytes(self) -> int:
        """Bytes of the folder's two files, before they are written."""
        return encoded_bytes(types(self.arrays()), self._metadata()) + len(config_bytes(self.config))

    def save(self, folder: Path) -> None:
        """Write the form's own weight file and ``adapter_config.json``, readable by the owner only."""
        write_folder(folder, self.form, encode(self.arrays(), self._metadata()), self.config)

    def _metadata(self) -> dict[str, str]:
        return metadata(self.schema, self.base, self.settings())


@dataclass(frozen=True)
class Known:
    """What every packed folder says besides its arrays."""

    schema: Schema
    config: Mapping[str, Any]
    base: str


def metadata(schema: Schema, base: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the header entries of a packed weight file."""
    tensors = [[name, list(shape)] for name, shape in schema.shapes]
    text = json.dumps({"settings": dict(settings), "tensors": tensors}, separators=(",", ":"))
    return {**stamp(base, schema), PACKED: text}
