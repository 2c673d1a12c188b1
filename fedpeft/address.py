"""Where a server is reached: ``host:port``."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")


def is_address(text: str) -> bool:
    """Say whether a text is ``host:port``; an IPv6 address stands in brackets."""
    match = _ADDRESS.fullmatch(text)
    return match is not None and 0 < int(match[2]) < 65536
