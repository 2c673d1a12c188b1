"""What all folders with one JSONL file per person share: files, lines, texts and times, and how they are refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from fedpeft.errors import DataError, nearest

# Later than any message; infinity would lie in no split.
_FOREVER = 1e300


def person_files(folder: Path, example: str) -> dict[str, Path]:
    """Return the ``*.jsonl`` files of a folder by the name of the person, in order of name.

    Raises
    ------
    DataError
        When there is none; ``example`` says what a line looks like.
    """
    files = {path.stem: path for path in sorted(folder.glob("*.jsonl"))}
    if not files:
        raise DataError(
            "data.federation",
            str(folder),
            "at least one *.jsonl file, one per person",
            f"each line is a message such as {example}",
        )
    return files


def records(path: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield the JSON object of each line that is not blank, with its number and where it is.

    Raises
    ------
    DataError
        Naming the file, and the line that is no JSON object.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(str(path), str(error), "a readable UTF-8 file") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where = f"{path}:{number}"
            yield number, where, _object(line, where)


def check_keys(record: dict[str, Any], fields: Sequence[str], where: str) -> None:
    """Refuse a key that is not a field."""
    for key in record:
        if key not in fields:
            expected = f"{', '.join(fields[:-1])} or {fields[-1]}"
            raise DataError(f"{where}: key", key, expected, nearest(key, fields))


def text_of(record: dict[str, Any], where: str) -> str:
    """Return a record's text without the white space around it."""
    text = record.get("text")
    if not isinstance(text, str):
        raise DataError(f"{where}: text", text, "a string")
    return text.strip()


def seconds(value: Any, where: str) -> float:
    """Read a time: ISO 8601, or seconds."""
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value).timestamp()
        except ValueError as error:
            raise DataError(f"{where}: time", value, "ISO 8601 or seconds", str(error)) from error
    # Compared before it is converted: an integer may be too large for a float.
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _FOREVER:
        return float(value)
    raise DataError(f"{where}: time", value, "ISO 8601 or seconds")


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(where, line[:80], "one JSON object per line", str(error)) from error
    if not isinstance(record, dict):
        raise DataError(where, line[:80], "a JSON object with a 'text'")
    return record
