"""The adapters of a batch's rows, stacked: row i of every input of the graph is what the adapter of row i puts there.

With ranks r_1 … r_n and r = max r_i, a site's A is an array (n, in, r): adapter i fills its first r_i columns and the
rest is 0, as are the rows of B that they meet, so that A B is the adapter's own product. Wherever a width is the
adapter's choice the same holds; scales are 1 where an adapter has none.

The arrays have a place for every row that may ever be there, and the rows in use come first: the first n rows of an
array are one block of memory, which is what a session is given. A row that changes is written alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fedpeft.device.manifest import Shape
from fedpeft.device.sites import neutral

Tensors = Mapping[str, NDArray[np.float32]]
"""What one adapter fills, by site; none for the bare base."""

_NOTHING: Tensors = {}


class Stack:
    """Adapters side by side.

    Parameters
    ----------
    sites : mapping
        Shapes for one row, by name.
    places : int
        Most rows.

    Attributes
    ----------
    arrays : dict of str to ndarray of float32, shape (places, …)
        By site.
    """

    def __init__(self, sites: Mapping[str, Shape], places: int) -> None:
        self._sites = dict(sites)
        self._held: list[Tensors] = [_NOTHING] * places
        self._loose: set[str] = set()
        self._blank = {name: float(neutral(name, (1,))[0]) for name in self._sites}
        self.arrays = {name: self._rebuilt(name) for name in self._sites}

    def put(self, place: int, tensors: Tensors) -> None:
        """Write one adapter. Where it is wider than the others, or was the widest, the array is made anew.

        Parameters
        ----------
        place : int
        tensors : mapping
            That fit the sites; none for the bare base.
        """
        self.drop(place)
        self._held[place] = tensors
        for name, array in self.arrays.items():
            tensor = tensors.get(name)
            width, room = tensor.shape if tensor is not None else None, array.shape[1:]
            if width == room:
                array[place] = tensor
            elif name in self._loose or (width and any(w > r for w, r in zip(width, room, strict=True))):
                self.arrays[name] = self._rebuilt(name)
            else:
                self._write(array[place], name, tensor)
        self._loose.clear()

    def drop(self, place: int) -> None:
        """Forget an adapter; its place holds anything from now on."""
        for name, tensor in self._held[place].items():
            if None in self._sites[name] and tensor.shape == self.arrays[name].shape[1:]:
                self._loose.add(name)
        self._held[place] = _NOTHING

    def move(self, source: int, target: int) -> None:
        """Take an adapter from one place to another."""
        held = self._held[source]
        self._held[source] = _NOTHING
        self.put(target, held)

    def _rebuilt(self, name: str) -> NDArray[np.float32]:
        """Return an array that is as wide as the widest adapter."""
        filled = [held[name].shape for held in self._held if name in held]
        shape = (
            max((found[i] for found in filled), default=0) if size is None else size
            for i, size in enumerate(self._sites[name])
        )
        array = np.empty((len(self._held), *shape), np.float32)
        for place, held in enumerate(self._held):
            self._write(array[place], name, held.get(name))
        return array

    def _write(self, row: NDArray[np.float32], name: str, tensor: NDArray[np.float32] | None) -> None:
        """Fill one row of an array: the tensor in its corner, and what changes nothing around it."""
        row[...] = self._blank[name]
        if tensor is not None:
            row[tuple(slice(size) for size in tensor.shape)] = tensor


def one_row(sites: Mapping[str, Shape], tensors: Tensors) -> dict[str, NDArray[np.float32]]:
    """Return what a batch of a single row is given, each array of shape (1, …)."""
    rows = {name: tensors[name] if name in tensors else neutral(name, shape) for name, shape in sites.items()}
    return {name: np.ascontiguousarray(row[np.newaxis], np.float32) for name, row in rows.items()}
