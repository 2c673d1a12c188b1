"""How much memory training takes, estimated. It is a formula scaled by measurements, not a measurement.

For n trained numbers, a batch of b texts of t tokens, L layers of width d with feed-forward width f and h heads, V
logits for each of p predictions, and s bytes per number of the base (4 or 2)::

    trained      16 n                                value, gradient and AdamW's two moments, in float32
    activations  s b t L (16 d + 6 f + 4 h t)        for the backward pass; checkpointing: s b t (L d + one layer's)
    logits       12 p V                              float32, their softmax and its gradient; chunked: p = the chunk
    workspace    20 MB                               of the matrix kernels

    peak = (trained + activations + logits + workspace) × what was measured / what the formula says of that comparison
    memory = 400 MB (Python and the libraries) + the base's weights + peak
"""

from __future__ import annotations

from dataclasses import dataclass

from fedpeft.base.quantize import BITS
from fedpeft.compare.row import Row, Shape

RUNTIME = 400_000_000
_WORKSPACE = 20_000_000
CHUNK = 64
"""Predictions whose logits exist at once, where chunks are advised."""


@dataclass(frozen=True)
class Thrift:
    """Ways to need less memory.

    Parameters
    ----------
    dtype : {"float32", "bfloat16"}
    precision : {"full", "nf4"}
    chunk : bool
        Logits of a few predictions at a time.
    checkpointing : bool
    """

    dtype: str = "float32"
    precision: str = "full"
    chunk: bool = False
    checkpointing: bool = False

    @property
    def width(self) -> int:
        """Bytes of a number the base computes with."""
        return 4 if self.dtype == "float32" else 2


def weights(shape: Shape, thrift: Thrift) -> int:
    """Return the bytes of the base's weights."""
    packed = shape.linear if thrift.precision == "nf4" else 0
    return round((shape.parameters - packed) * thrift.width + packed * BITS["nf4"] / 8)


def growth(shape: Shape, trainable: int, thrift: Thrift) -> int:
    """Return the formula's bytes above the loaded base."""
    tokens = shape.batch * shape.length
    layer = thrift.width * tokens * (16 * shape.hidden + 6 * shape.feed_forward + 4 * shape.heads * shape.length)
    kept = layer * shape.layers
    if thrift.checkpointing:
        kept = min(kept, thrift.width * tokens * shape.hidden * shape.layers + layer)
    scored = min(shape.predictions, CHUNK) if thrift.chunk else shape.predictions
    return 16 * trainable + kept + 12 * scored * shape.vocabulary + _WORKSPACE


def memory(shape: Shape, trainable: int, thrift: Thrift, row: Row, measured: Shape) -> int:
    """Estimate the bytes of a process that trains.

    Parameters
    ----------
    shape : Shape
        The base and batch in question.
    trainable : int
        Numbers trained on it.
    thrift : Thrift
    row : Row
        What the method took where it was measured, on a float32 base.
    measured : Shape
        The base and batch it was measured on.
    """
    factor = 1e6 * row.peak_mb / growth(measured, row.trainable, Thrift()) if row.peak_mb else 1.0
    return RUNTIME + weights(shape, thrift) + round(factor * growth(shape, trainable, thrift))
