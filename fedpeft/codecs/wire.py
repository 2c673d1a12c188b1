"""The whole payload of a client: the vector's integers, then the lanes' digits, in one array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpeft.adapters.schema import Vector
from fedpeft.adapters.update import Update
from fedpeft.codecs.lanes import LaneCodec
from fedpeft.codecs.ring import Ring, RingCodec
from fedpeft.codecs.rotation import Rotation
from fedpeft.errors import ProtocolError


@dataclass(frozen=True)
class WireCodec:
    """Encodes updates and decodes sums of updates.

    Parameters
    ----------
    ring : RingCodec
    size : int
        Length d of the update's vector; 0 for messages that carry lanes alone.
    names : sequence of str
        The lanes.
    rotation : Rotation, optional
        Of the vector, before it is written.
    """

    ring: RingCodec
    size: int
    names: Sequence[str]
    rotation: Rotation | None = None

    @property
    def lanes(self) -> LaneCodec:
        """How the lanes are written."""
        return LaneCodec(self.ring, self.names)

    @property
    def coordinates(self) -> int:
        """Ring coordinates of the vector."""
        return self.size if self.rotation is None else self.rotation.padded

    @property
    def length(self) -> int:
        """Ring coordinates of a payload; a message of another length is refused unread."""
        return self.coordinates + self.lanes.size

    def spread(self, vector: Vector) -> Vector:
        """Return the vector as it is written, shape (coordinates,)."""
        return vector if self.rotation is None else self.rotation.forward(vector)

    def encode(self, update: Update, rng: np.random.Generator) -> Ring:
        """Write an update as ring integers of shape (length,)."""
        if update.vector.shape != (self.size,):
            raise ProtocolError("update vector shape", update.vector.shape, f"({self.size},)")
        return self.join(self.ring.encode(self.spread(update.vector), rng), update.lanes)

    def join(self, levels: Ring, lanes: Mapping[str, float]) -> Ring:
        """Append lanes to a vector that is already written."""
        return np.concatenate([levels, self.lanes.encode(lanes)])

    def decode(self, total: NDArray[np.uint64], contributors: int) -> Update:
        """Read the sum of the contributors' updates from the sum of their payloads."""
        vector = self.ring.decode(total[: self.coordinates], contributors)
        if self.rotation is not None:
            vector = self.rotation.inverse(vector)
        return Update(vector, self.lanes.decode(total[self.coordinates :]))
