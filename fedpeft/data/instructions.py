"""A folder with one JSONL file per person of what they asked a model, and what it ought to have said.

``folder/ada.jsonl`` is the client ``ada``. A line is a conversation or one instruction with its answer::

    {"messages": [{"role": "user", "content": "Name a fruit."}, {"role": "assistant", "content": "Plum."}]}
    {"instruction": "Translate.", "input": "Obst", "output": "fruit"}
    {"prompt": "Name a fruit.", "response": "Plum."}

What the assistant says is learnt: to a federation it is what the client wrote. A ``system``'s message may come first.
An ``input`` follows its instruction after an empty line. Lines are in order of time, later ones test; a ``time`` in any
line, ISO 8601 or seconds, stands instead of its number.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from fedpeft.data.lines import check_keys, person_files, records, seconds
from fedpeft.data.messages import Conversation, Message
from fedpeft.errors import DataError, nearest

_ROLES = ("system", "user", "assistant")
_ASKED, _ANSWERED = ("instruction", "prompt"), ("output", "response")
_EXAMPLE = '{"prompt": "Name a fruit.", "response": "Plum."}'


def holds_instructions(folder: Path) -> bool:
    """Say whether the first line of a folder's files is a conversation or an instruction.

    Raises
    ------
    DataError
        When the folder has no file, or that line is no JSON object.
    """
    for path in person_files(folder, '{"text": "hello"}').values():
        for _, _, record in islice(records(path), 1):
            return any(key in record for key in ("messages", *_ASKED))
    return False


class InstructionFederation:
    """Clients read from ``*.jsonl`` files of conversations and instructions, one file a person.

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
        self._files = person_files(folder, _EXAMPLE)

    def client_ids(self) -> list[str]:
        """Return the file names without their ending."""
        return list(self._files)

    def conversations(self, client_id: str) -> list[Conversation]:
        """Read one person's file, a conversation a line.

        Raises
        ------
        DataError
            Naming the file and line that cannot be used.
        """
        made = []
        for number, where, record in records(self._files[client_id]):
            time = seconds(record.get("time", number), where)
            said = _messages(record, where) if "messages" in record else _instruction(record, where)
            made.append(tuple(Message(text, role == "assistant", time, role == "system") for role, text in said))
        return made


def _messages(record: dict[str, Any], where: str) -> list[tuple[str, str]]:
    check_keys(record, ("messages", "time"), where)
    listed = record["messages"]
    if not isinstance(listed, list) or not listed:
        raise DataError(f"{where}: messages", listed, "a list of messages with role and content")
    said: list[tuple[str, str]] = []
    for i, message in enumerate(listed):
        place = f"{where}: messages[{i}]"
        if not isinstance(message, dict):
            raise DataError(place, message, "an object with role and content")
        check_keys(message, ("role", "content"), place)
        role = message.get("role")
        if role not in _ROLES:
            raise DataError(f"{place}.role", role, ", ".join(_ROLES), nearest(str(role), _ROLES))
        if role == "system" and i:
            raise DataError(f"{place}.role", role, "user or assistant", "a system speaks first")
        said.append((role, _text(message, "content", place)))
    if not any(role == "assistant" for role, _ in said):
        raise DataError(f"{where}: messages", "none of the assistant's", "at least one: they are what is learnt")
    return said


def _instruction(record: dict[str, Any], where: str) -> list[tuple[str, str]]:
    asked, answered = (next((k for k in keys if k in record), None) for keys in (_ASKED, _ANSWERED))
    if asked is None or answered is None:
        found = ", ".join(record) or "no keys"
        raise DataError(where, found, "messages, or an instruction with its output", f"such as {_EXAMPLE}")
    check_keys(record, (asked, "input", answered, "time"), where)
    question = _text(record, asked, where)
    if record.get("input") not in (None, ""):
        question += "\n\n" + _text(record, "input", where)
    return [("user", question), ("assistant", _text(record, answered, where))]


def _text(record: dict[str, Any], key: str, where: str) -> str:
    text = record.get(key)
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where}: {key}", text, "a text that is not empty")
    return text.strip()
