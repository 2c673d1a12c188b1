"""The gate of a federation: a one-time token becomes a certificate, and a device knows where it belongs.

The operator makes a token, the person's app presents it, the gate certifies the key that the app made. What the token
says is enough to trust the gate before anything else is known; see :mod:`.token`. Enrolling takes ``cryptography`` and
the standard library; only the service takes more.
"""

from fedpeft.gate.enrolling import enrol

__all__ = ["enrol"]
