"""A folder with one JSONL file per person, the simplest way to bring your own clients.

``folder/ada.jsonl`` is the client ``ada``. A line is one message, in order of time::

    {"text": "on my way", "time": "2026-05-02T19:38:15Z", "conversation": "sam", "mine": true}

Only ``text`` is required. ``time`` is ISO 8601 or seconds, and the line number when it is absent;
``conversation`` groups lines that answer each other; ``mine`` is false for what others wrote.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from fedpeft.data.lines import check_keys, person_files, records, seconds, text_of
from fedpeft.data.messages import Conversation, Message
from fedpeft.errors import DataError

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
        self._files = person_files(folder, '{"text": "hello"}')

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
        grouped: dict[str, list[Message]] = defaultdict(list)
        for number, where, record in records(self._files[client_id]):
            message = _message(record, number, where)
            if message.text:
                grouped[str(record.get("conversation", ""))].append(message)
        return [tuple(sorted(messages, key=lambda m: m.time)) for messages in grouped.values()]


def _message(record: dict[str, Any], number: int, where: str) -> Message:
    if "label" in record:
        raise DataError(
            f"{where}: label",
            record["label"],
            "messages without labels",
            "a folder of labelled lines needs a classification task",
        )
    check_keys(record, _FIELDS, where)
    text, mine = text_of(record, where), record.get("mine", True)
    if not isinstance(mine, bool):
        raise DataError(f"{where}: mine", mine, "true or false")
    return Message(text, mine, seconds(record.get("time", number), where))
