"""Many adapters on one live model, and microseconds from one to the next.

The adapters of one schema are the rows of a single matrix. Each of the model's parameters is a window: switching
points it at its place in another row. Nothing is copied, so a switch costs the same for an adapter of any size, and
is exact; what an optimizer does to the parameters, it does to the row.

    switcher = Switcher(named_parameters)
    switcher.add("anna", adapter)
    switcher.switch("anna")
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedpeft.adapters.adapter import Adapter
from fedpeft.adapters.schema import Schema, Vector
from fedpeft.errors import AdapterError, nearest

_COMPUTES = (
    "peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "fan_in_fan_out",
)  # fmt: skip
"""Settings that decide what tensors do, and that a model keeps outside of its parameters."""


class Switcher:
    """Holds adapters for a model's parameters and puts one of them in force.

    Parameters
    ----------
    parameters : mapping of str to Parameter
        By the names that the adapters use; all of one dtype on one device. Their present values are kept and
        come back with :meth:`release`.
    capacity : int
        Rows to begin with; the matrix doubles when they are used up.

    Raises
    ------
    AdapterError
        When there are no parameters, or they differ in dtype or device.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], capacity: int = 8) -> None:
        kinds = {(p.dtype, p.device) for p in parameters.values()}
        if len(kinds) != 1:
            raise AdapterError("parameters", sorted(map(str, kinds)), "some, of one dtype on one device")
        (self._kind,) = kinds
        self.schema = Schema.of({name: tuple(p.shape) for name, p in parameters.items()})
        self._parameters = [parameters[name] for name in self.schema.names()]
        self._shapes = [shape for _, shape in self.schema.shapes]
        self._sizes = [p.numel() for p in self._parameters]
        self._own = [p.data for p in self._parameters]
        self._rows: dict[str, int] = {}
        self._free = list(range(capacity))[::-1]
        self._windows: dict[str, list[Tensor]] = {}
        self._settings: dict[str, Any] | None = None
        self._matrix = self._blank(capacity)
        self.active: str | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    @property
    def names(self) -> list[str]:
        """The adapters it holds, in order of arrival."""
        return list(self._rows)

    def add(self, name: str, adapter: Adapter | Vector) -> None:
        """Take an adapter in, or replace one; if it is in force, the new numbers are at once.

        Parameters
        ----------
        name : str
        adapter : Adapter or ndarray of float32, shape (schema.size,)
            Adapters must agree in what the model keeps outside of its parameters, such as the scaling.

        Raises
        ------
        AdapterError
            When it is of another schema or scaling.
        """
        if isinstance(adapter, Adapter):
            self.schema.check(dict(adapter.schema.shapes))
            self._agree({key: adapter.config.get(key) or None for key in _COMPUTES})
        vector = adapter.vector if isinstance(adapter, Adapter) else adapter
        if vector.shape != (self.schema.size,):
            raise AdapterError("adapter vector shape", vector.shape, f"({self.schema.size},)")
        if name not in self._rows:
            if not self._free:
                self._grow()
            self._rows[name] = self._free.pop()
        self._matrix[self._rows[name]] = torch.from_numpy(np.array(vector, np.float32))

    def switch(self, name: str) -> None:
        """Put an adapter in force.

        Raises
        ------
        AdapterError
            When there is none of that name.
        """
        windows = self._windows.get(name) or self._cut(name)
        for parameter, window in zip(self._parameters, windows, strict=True):
            parameter.data = window
        self.active = name

    def release(self) -> None:
        """Give the parameters back the values they had before the first switch."""
        for parameter, own in zip(self._parameters, self._own, strict=True):
            parameter.data = own
        self.active = None

    def vector(self, name: str) -> Vector:
        """Return a copy of an adapter as it is now, trained further or not.

        Raises
        ------
        AdapterError
            When there is none of that name.
        """
        return np.array(self._matrix[self._row(name)].float().cpu().numpy())

    def remove(self, name: str) -> None:
        """Forget an adapter; if it is in force, the parameters get their own values back.

        Raises
        ------
        AdapterError
            When there is none of that name.
        """
        row = self._row(name)
        if self.active == name:
            self.release()
        self._matrix[row] = 0.0
        self._free.append(row)
        del self._rows[name]
        self._windows.pop(name, None)

    def _row(self, name: str) -> int:
        if name not in self._rows:
            raise AdapterError("adapter name", name, "one that was added", nearest(name, self._rows))
        return self._rows[name]

    def _cut(self, name: str) -> list[Tensor]:
        pieces: Iterable[Tensor] = self._matrix[self._row(name)].split(self._sizes)
        self._windows[name] = [piece.view(shape) for piece, shape in zip(pieces, self._shapes, strict=True)]
        return self._windows[name]

    def _grow(self) -> None:
        """Double the matrix; the parameters follow it to its new place."""
        used = len(self._matrix)
        larger = self._blank(max(2 * used, 1))
        larger[:used] = self._matrix
        self._matrix, self._windows = larger, {}
        self._free = list(range(used, len(larger)))[::-1]
        if self.active is not None:
            self.switch(self.active)

    def _blank(self, rows: int) -> Tensor:
        dtype, device = self._kind
        return torch.zeros(rows, self.schema.size, dtype=dtype, device=device)

    def _agree(self, settings: dict[str, Any]) -> None:
        known = self._settings = self._settings or settings
        for key, value in settings.items():
            if value != known[key]:
                remedy = "bring it to one scaling first, with fedpeft.adapters.algebra.scale"
                raise AdapterError(f"adapter {key}", value, f"{known[key]!r}, as in the others", remedy)
