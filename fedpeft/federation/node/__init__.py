"""A node in an app's own process: it answers a SuperLink with what is installed here, and never dies of it."""

from fedpeft.federation.node.embedded import EmbeddedNode, Rhythm

__all__ = ["EmbeddedNode", "Rhythm"]
