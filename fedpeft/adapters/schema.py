"""The order, shapes and dtypes of what a method trains; everything after training is one flat vector."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from math import prod

import numpy as np
from numpy.typing import NDArray

from fedpeft.errors import AdapterError

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Schema:
    """The trainable tensors of a method on a base: names and shapes, in order. All are float32.

    Parameters
    ----------
    shapes : tuple of (str, tuple of int)
        Sorted by name, so that every machine flattens alike.
    context : str
        The sha256 of frozen tensors that the trainables only make sense with, such as seeded projections;
        empty when there are none.
    """

    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    context: str = ""

    @classmethod
    def of(cls, shapes: Mapping[str, tuple[int, ...]], context: str = "") -> Schema:
        """Make a schema from names and shapes in any order."""
        return cls(tuple(sorted((name, tuple(shape)) for name, shape in shapes.items())), context)

    @cached_property
    def digest(self) -> str:
        """The sha256 of the canonical JSON; it is in every message of a federation."""
        entries: list[object] = [[n, list(s), "float32"] for n, s in self.shapes]
        if self.context:
            entries.append({"context": self.context})
        return sha256(json.dumps(entries, separators=(",", ":")).encode()).hexdigest()

    @cached_property
    def size(self) -> int:
        """Length of the flat vector."""
        return sum(prod(shape) for _, shape in self.shapes)

    def names(self) -> list[str]:
        """Return the tensor names in order."""
        return [name for name, _ in self.shapes]

    def flatten(self, tensors: Mapping[str, NDArray[np.floating]]) -> Vector:
        """Concatenate tensors to one float32 vector.

        Raises
        ------
        AdapterError
            When a name is missing or unknown, or a shape differs.
        """
        self.check({name: tuple(t.shape) for name, t in tensors.items()})
        parts = [np.asarray(tensors[name], np.float32).ravel() for name, _ in self.shapes]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def unflatten(self, vector: Vector) -> dict[str, Vector]:
        """Cut a flat vector into tensors (views, no copies).

        Raises
        ------
        AdapterError
            When the length is not :attr:`size`.
        """
        if vector.shape != (self.size,):
            raise AdapterError("adapter vector shape", vector.shape, f"({self.size},)")
        tensors, start = {}, 0
        for name, shape in self.shapes:
            end = start + prod(shape)
            tensors[name] = vector[start:end].reshape(shape)
            start = end
        return tensors

    def mask(self, keep: Callable[[str], bool]) -> NDArray[np.bool_]:
        """Return a boolean vector, true on the coordinates of the tensors that ``keep`` names."""
        parts = [np.full(prod(shape), keep(name)) for name, shape in self.shapes]
        return np.concatenate(parts) if parts else np.zeros(0, bool)

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Refuse tensors that are not this schema's.

        Raises
        ------
        AdapterError
            Naming the first tensor that differs.
        """
        mine = dict(self.shapes)
        for name in sorted(mine.keys() ^ shapes.keys()):
            found = "absent" if name in mine else shapes[name]
            raise AdapterError(f"adapter tensor {name}", found, f"shape {mine.get(name, 'absent')}")
        for name, shape in mine.items():
            if tuple(shapes[name]) != shape:
                raise AdapterError(f"adapter tensor {name}", shapes[name], f"shape {shape}")
