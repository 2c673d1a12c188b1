"""What an adapter puts into a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedpeft.errors import AdapterError

Inputs = dict[str, NDArray[np.float32]]

PREFIX = "base_model.model."
"""What peft puts before the names of the base's own modules."""


@dataclass(frozen=True)
class Filling:
    """Values for sites, and keys and values that come before every text.

    Parameters
    ----------
    inputs : dict of str to ndarray of float32
        By site, see :mod:`fedpeft.device.sites`.
    past : dict of str to ndarray of float32
        ``past_key_values.<layer>.key`` and ``.value``, each of shape (1, kv_heads, positions, head_dim).
    """

    inputs: Inputs
    past: Inputs = field(default_factory=dict)

    def __or__(self, other: Filling) -> Filling:
        """Join what two parts of a method fill.

        Raises
        ------
        AdapterError
            When both fill one place.
        """
        for mine, theirs in ((self.inputs, other.inputs), (self.past, other.past)):
            if twice := mine.keys() & theirs.keys():
                raise AdapterError(f"adapter site {min(twice)}", "filled by two parts", "one part for every place")
        return Filling({**self.inputs, **other.inputs}, {**self.past, **other.past})


def contiguous(array: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return an array as onnxruntime takes it."""
    return np.ascontiguousarray(array, np.float32)


def module_of(name: str, ending: str) -> str:
    """Return the base's module that a tensor belongs to.

    Raises
    ------
    AdapterError
        When the tensor's name does not end so.
    """
    if not name.endswith(ending):
        raise AdapterError(f"adapter tensor {name}", "an unknown tensor", f"a name that ends with {ending}")
    return name.removeprefix(PREFIX).removesuffix(ending)


def only(tensors: Mapping[str, NDArray[np.float32]], name: str) -> NDArray[np.float32]:
    """Return the one tensor that an adapter should have.

    Raises
    ------
    AdapterError
        When it has others, or lacks it.
    """
    if set(tensors) != {name}:
        raise AdapterError("adapter tensors", sorted(tensors)[:3], f"{name} alone")
    return tensors[name]
