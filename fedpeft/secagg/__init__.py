"""How updates are protected on their way, and how the server opens their sum."""

from fedpeft.secagg.channel import CHANNELS, Channel, Opener

__all__ = ["CHANNELS", "Channel", "Opener"]
