"""What a client sends: one flat vector and a few named numbers, a value that can be added.

The sum of updates is all that a server ever needs: ``sum(w_i * delta_i)`` in the vector, ``sum(w_i)``,
counts and metric totals in the lanes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedpeft.adapters.schema import Vector
from fedpeft.errors import ProtocolError

WEIGHT = "weight"


@dataclass(frozen=True)
class Update:
    """A weighted change of the shared parameters.

    Parameters
    ----------
    vector : ndarray of float32, shape (d,)
        ``weight * delta``.
    lanes : mapping of str to float
        Named totals, :data:`WEIGHT` among them; each is summed over clients.
    """

    vector: Vector
    lanes: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def weighted(cls, delta: Vector, weight: float, lanes: Mapping[str, float]) -> Update:
        """Make an update from a change and its weight in (0, 1].

        Raises
        ------
        ProtocolError
            When the change or a lane is not finite: such an update must never be sent.
        """
        require_finite(delta, np.array([weight, *lanes.values()]))
        return cls(np.float32(weight) * delta, {WEIGHT: weight, **lanes})

    def __add__(self, other: Update) -> Update:
        if self.vector.shape != other.vector.shape or self.lanes.keys() != other.lanes.keys():
            raise ProtocolError("update", other.vector.shape, f"shape {self.vector.shape} and equal lanes")
        lanes = {name: value + other.lanes[name] for name, value in self.lanes.items()}
        return Update(self.vector + other.vector, lanes)

    def mean(self) -> Vector:
        """Return the weighted mean change, ``vector / weight``."""
        return self.vector / np.float32(self.lanes[WEIGHT])


def require_finite(*arrays: NDArray[np.floating]) -> None:
    """Refuse numbers that must never be sent.

    Raises
    ------
    ProtocolError
        When one is NaN or infinite: training diverged.
    """
    if not all(np.isfinite(array).all() for array in arrays):
        raise ProtocolError("update", "NaN or infinity", "finite numbers", "lower training.learning_rate")
