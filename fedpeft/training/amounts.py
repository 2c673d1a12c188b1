"""Amounts of bytes as people write them: 500kB, 2 GB, 1.5MiB, 64000."""

from __future__ import annotations

import re

from fedpeft.errors import FedpeftError

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SHAPE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*")


def amount(text: str, field: str) -> int:
    """Read an amount.

    Parameters
    ----------
    text : str
    field : str
        What it is of, for the message.

    Raises
    ------
    FedpeftError
        When it is no positive amount.
    """
    found = _SHAPE.fullmatch(text)
    unit = _UNITS.get(found[2].lower()) if found else None
    if found is None or unit is None or round(float(found[1]) * unit) < 1:
        raise FedpeftError(field, text, "an amount of bytes", "as in 500kB, 2GB or 1.5MiB")
    return round(float(found[1]) * unit)
