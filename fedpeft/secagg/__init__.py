"""Between a client's integers and the server's sum: what the server may learn."""

from fedpeft.secagg.channel import CHANNELS, SECURE, Asked, ClientEnd, Collection, PlainEnd, PlainServer, ServerEnd

__all__ = ["CHANNELS", "SECURE", "Asked", "ClientEnd", "Collection", "PlainEnd", "PlainServer", "ServerEnd"]
