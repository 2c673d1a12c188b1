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
        self.arrays = {name: _empty(name, shape, places) for name, shape in self._sites.items()}

    def put(self, place: int, tensors: Tensors) -> bool:
        """Write one adapter.

        Parameters
        ----------
        place : int
        tensors : mapping
            That fit the sites; none for the bare base.

        Returns
        -------
        bool
            Whether arrays were replaced by wider or narrower ones; whoever points into them must look again.

        """
        self._held[place] = tensors
        replaced = False
        for name, shape in self._sites.items():
            if self._widths(name) != self.arrays[name].shape[1:]:
                self.arrays[name] = self._rebuilt(name)
                replaced = True
            else:
                _write(self.arrays[name][place], name, shape, self._held[place].get(name))
        return replaced

    def move(self, source: int, target: int) -> bool:
        """Take an adapter from one place to another and leave the first empty; returns what :meth:`put` does."""
        held = self._held[source]
        self._held[source] = _NOTHING
        return self.put(target, held)

    def _widths(self, name: str) -> tuple[int, ...]:
        """Return the shape of a row in which every adapter fits."""
        filled = [held[name].shape for held in self._held if name in held]
        return tuple(
            max((shape[i] for shape in filled), default=0) if size is None else size
            for i, size in enumerate(self._sites[name])
        )

    def _rebuilt(self, name: str) -> NDArray[np.float32]:
        shape = self._sites[name]
        array = np.empty((len(self._held), *self._widths(name)), np.float32)
        for place, held in enumerate(self._held):
            _write(array[place], name, shape, held.get(name))
        return array


def one_row(sites: Mapping[str, Shape], tensors: Tensors) -> dict[str, NDArray[np.float32]]:
    """Return what a batch of a single row is given, each array of shape (1, …)."""
    rows = {name: tensors[name] if name in tensors else neutral(name, shape) for name, shape in sites.items()}
    return {name: np.ascontiguousarray(row[np.newaxis], np.float32) for name, row in rows.items()}


def _empty(name: str, shape: Shape, places: int) -> NDArray[np.float32]:
    return np.repeat(neutral(name, shape)[np.newaxis], places, axis=0)


def _write(row: NDArray[np.float32], name: str, shape: Shape, tensor: NDArray[np.float32] | None) -> None:
    """Fill one row of an array: the tensor in its corner, and what changes nothing around it."""
    row[...] = neutral(name, tuple(row.shape)) if tensor is None else 0
    if tensor is not None:
        row[tuple(slice(size) for size in tensor.shape)] = tensor
