"""Codecs: from the flat vector to integers in a ring, and from the ring's sum back to numbers."""

from fedpeft.codecs.ring import RingCodec
from fedpeft.codecs.wire import WireCodec

__all__ = ["RingCodec", "WireCodec"]
