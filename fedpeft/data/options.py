"""Options that stand in a federation's name, as in ``intents:clients=20,alpha=0.3``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from fedpeft.errors import DataError, nearest


class Option(NamedTuple):
    """How an option is read.

    Parameters
    ----------
    read : callable
        From its text to its value, None when the text is none.
    expected : str
        What texts are.
    """

    read: Callable[[str], int | float | None]
    expected: str


def whole(least: int, most: int) -> Callable[[str], int | None]:
    """Return a reader of whole numbers from ``least`` to ``most``."""
    return lambda text: int(text) if text.isascii() and text.isdigit() and least <= int(text) <= most else None


def names(name: str, source: str) -> bool:
    """Say whether a name is of this source, with or without options; ``source:function`` is a callable's."""
    found, _, options = name.partition(":")
    return found == source and ("=" in options or not options)


def read_options(text: str, known: Mapping[str, Option], example: str) -> dict[str, int | float]:
    """Read what stands after a name's colon.

    Parameters
    ----------
    text : str
        Such as ``clients=20,alpha=0.3``; empty for none.
    known : mapping of str to Option
    example : str
        A name with options, for the message of an error.

    Raises
    ------
    DataError
        When one is unknown, given twice, or not what it should be.
    """
    chosen: dict[str, int | float] = {}
    for option in filter(None, text.split(",")):
        key, equals, written = option.partition("=")
        if key not in known or not equals:
            *others, last = (f"{name}=…" for name in known)
            raise DataError(
                "data.federation: option", option, f"{', '.join(others)} or {last}", nearest(key, list(known))
            )
        if key in chosen:
            raise DataError(f"data.federation: {key}", text, "each option once")
        value = known[key].read(written)
        if value is None:
            raise DataError(f"data.federation: {key}", written, known[key].expected, f"as in {example}")
        chosen[key] = value
    return chosen
