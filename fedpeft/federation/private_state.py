"""What a client keeps for itself between rounds: heads, routers, a private factor.

One file per round that changed it, so that a round that is run again after an interruption starts from what the client
had before that round. A client that was never asked keeps the seeded start.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from fedpeft.adapters.schema import Vector
from fedpeft.errors import AdapterError
from fedpeft.files import private_folder, write_private

_FILE = re.compile(r"round-(\d+)\.safetensors")


class PrivateState:
    """A client's own coordinates of the shared slot.

    Parameters
    ----------
    folder : Path
        The client's own.
    size : int
        How many coordinates there are.
    schema : str
        Digest of the schema they belong to.
    """

    def __init__(self, folder: Path, size: int, schema: str) -> None:
        self._folder, self._size, self._schema = folder / "state", size, schema

    def before(self, round_: int) -> Vector | None:
        """Return what the client had when a round began; None when it was never asked before.

        Raises
        ------
        AdapterError
            When the file is damaged or of another schema.
        """
        earlier = [number for number in self._rounds() if number < round_]
        if not earlier:
            return None
        path = self._folder / f"round-{max(earlier)}.safetensors"
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise AdapterError(f"private state {path}", str(error), "a whole file") from error
        vector = tensors.get(self._schema)
        if vector is None or vector.shape != (self._size,) or not np.isfinite(vector).all():
            raise AdapterError(f"private state {path}", sorted(tensors), f"{self._size} finite numbers of this schema")
        return vector

    def keep(self, round_: int, vector: Vector) -> None:
        """Write what the client has after a round; of earlier rounds only the last is kept."""
        private_folder(self._folder)
        write_private(self._folder / f"round-{round_}.safetensors", save({self._schema: vector}))
        for number in sorted(n for n in self._rounds() if n < round_)[:-1]:
            (self._folder / f"round-{number}.safetensors").unlink()

    def _rounds(self) -> list[int]:
        if not self._folder.is_dir():
            return []
        return [int(match[1]) for path in self._folder.iterdir() if (match := _FILE.fullmatch(path.name))]
