"""JSON and JSON-lines files read into checked values; what cannot be used is refused by file and line."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from fedpeft.errors import RunError

T = TypeVar("T")
_REMEDY = "restore the file from a copy, or run the scenario again"
_NOTHING_SHOWN = ("missing", "json_invalid")  # for these pydantic hands back the whole line


def read_json(path: Path, shape: TypeAdapter[T]) -> T | None:
    """Read one JSON file.

    Returns
    -------
    T or None
        The checked value; None when there is no such file.

    Raises
    ------
    RunError
        Naming the file and the field that is wrong.
    """
    text = _text(path)
    return None if text is None else checked(text, shape, str(path))


def read_lines(path: Path, shape: TypeAdapter[T], unfinished: bool) -> list[T]:
    """Read a file of one JSON object per line.

    Parameters
    ----------
    path : Path
        An absent file has no lines.
    shape : TypeAdapter
        What a line must be.
    unfinished : bool
        Whether a last line without its end is a write in progress, and left out, rather than damage.

    Raises
    ------
    RunError
        Naming the file, the line and the field that is wrong.
    """
    # Only "\n" ends a line here: str.splitlines would also cut at U+2028, which JSON allows in a string.
    *lines, tail = (_text(path) or "").split("\n")
    if tail and not unfinished:
        lines.append(tail)
    return [checked(line, shape, f"{path}:{n}") for n, line in enumerate(lines, start=1) if line.strip()]


def read_text(path: Path) -> str:
    """Read a text file; an absent one is empty.

    Raises
    ------
    RunError
        When it is there and cannot be read.
    """
    return _text(path) or ""


def checked(text: str, shape: TypeAdapter[T], where: str) -> T:
    """Read one JSON text.

    Raises
    ------
    RunError
        Naming ``where`` and the field that is wrong.
    """
    try:
        return shape.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        found = text.strip()[:80] if first["type"] in _NOTHING_SHOWN else str(first["input"])[:80]
        expected = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        raise RunError(f"{where}: {place}" if place else where, found, expected, _REMEDY) from error


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise RunError(f"{path}:{line}", str(error), "UTF-8 text", _REMEDY) from error
    except OSError as error:
        raise RunError(str(path), error.strerror, "a readable file", _REMEDY) from error
