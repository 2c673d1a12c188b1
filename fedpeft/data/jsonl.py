"""A folder with one JSONL file per person, the simplest way to bring your own clients.

``folder/ada.jsonl`` is the client ``ada``. A line is one message, in order of time::

    {"text": "on my way", "time": "2026-05-02T19:38:15Z", "conversation": "sam", "mine": true}

Only ``text`` is required. ``time`` is ISO 8601 or seconds, and the line number when it is absent;
``conversation`` groups lines that answer each other; ``mine`` is false for what others wrote.
"""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

from fedpeft.data.messages import Conversation, Message
from fedpeft.errors import DataError, nearest

# Later than any message; infinity would lie in no split.
_FOREVER = 1e300
_FIELDS = ("text", "time", "conversation", "mine")


class JsonlFederation:
    """Clients read from ``*.jsonl`` files, one file a person.

    Parameters
    ----------
    folder : Path
        Where the files lie.

    Raises
    ------
    DataError
        When the folder holds no ``*.jsonl`` file.
    """

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self._files = {path.stem: path for path in sorted(folder.glob("*.jsonl"))}
        if not self._files:
            raise DataError(
                "data.federation",
                str(folder),
                "at least one *.jsonl file, one per person",
                'each line is a message such as {"text": "hello"}',
            )

    def client_ids(self) -> list[str]:
        """Return the file names without their ending."""
        return list(self._files)

    def conversations(self, client_id: str) -> list[Conversation]:
        """Read one person's file.

        Raises
        ------
        DataError
            Naming the file and line that cannot be used.
        """
        path = self._files[client_id]
        grouped: dict[str, list[Message]] = defaultdict(list)
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(str(path), str(error), "a readable UTF-8 file") from error
        for number, line in enumerate(lines, start=1):
            if line.strip():
                group, message = _message(line, number, path)
                if message.text:
                    grouped[group].append(message)
        return [tuple(sorted(messages, key=lambda m: m.time)) for messages in grouped.values()]


def _message(line: str, number: int, path: Path) -> tuple[str, Message]:
    where = f"{path}:{number}"
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(where, line[:80], "one JSON object per line", str(error)) from error
    if not isinstance(record, dict):
        raise DataError(where, line[:80], "a JSON object with a 'text'")
    for key in record:
        if key not in _FIELDS:
            raise DataError(f"{where}: key", key, "text, time, conversation or mine", nearest(key, _FIELDS))
    text, mine = record.get("text"), record.get("mine", True)
    if not isinstance(text, str):
        raise DataError(f"{where}: text", text, "a string")
    if not isinstance(mine, bool):
        raise DataError(f"{where}: mine", mine, "true or false")
    group = str(record.get("conversation", ""))
    return group, Message(text.strip(), mine, _seconds(record.get("time", number), where))


def _seconds(value: Any, where: str) -> float:
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value).timestamp()
        except ValueError as error:
            raise DataError(f"{where}: time", value, "ISO 8601 or seconds", str(error)) from error
    # Compared before it is converted: an integer may be too large for a float.
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _FOREVER:
        return float(value)
    raise DataError(f"{where}: time", value, "ISO 8601 or seconds")
