"""A folder with one JSONL file per person and a label on every line.

``folder/ada.jsonl`` is the client ``ada``. A line is one text and what it is::

    {"text": "where is my money?", "label": "refund", "time": "2026-05-02T19:38:15Z"}

``text`` and ``label`` are required. With ``time``, ISO 8601 or seconds, on every line of a file, earlier lines train
and later ones test; without, the split is stratified by label. The labels are those of all files, in alphabetical
order.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from fedpeft.data.labelled import Example
from fedpeft.data.lines import check_keys, person_files, records, seconds, text_of
from fedpeft.errors import DataError

_FIELDS = ("text", "label", "time")

_Row = tuple[str, str, float]


class LabelledJsonlFederation:
    """Clients read from ``*.jsonl`` files of labelled lines, one file a person.

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
        self._files = person_files(folder, '{"text": "where is my money?", "label": "refund"}')

    def client_ids(self) -> list[str]:
        """Return the file names without their ending."""
        return list(self._files)

    def labels(self) -> list[str]:
        """Return every label of any file.

        Raises
        ------
        DataError
            Naming the file and line that cannot be used, or the folder when it has fewer than two labels.
        """
        return self._labels

    def examples(self, client_id: str) -> list[Example]:
        """Return one person's lines."""
        index = {label: i for i, label in enumerate(self._labels)}
        return [Example(text, index[label], time) for text, label, time in self._rows[client_id]]

    def groups(self) -> dict[str, tuple[int, int]]:
        """Return the one task, named as the folder."""
        return {self.name: (0, len(self._labels))}

    def group_of(self, client_id: str) -> str:
        """Return the one task."""
        return self.name

    @cached_property
    def _rows(self) -> dict[str, list[_Row]]:
        return {client: _read(path) for client, path in self._files.items()}

    @cached_property
    def _labels(self) -> list[str]:
        found = sorted({label for rows in self._rows.values() for _, label, _ in rows})
        if len(found) < 2:
            raise DataError(f"{self.name}: label", found, "at least two labels to tell apart")
        return found


def _read(path: Path) -> list[_Row]:
    rows: list[_Row] = []
    timed: bool | None = None
    for _, where, record in records(path):
        if "label" not in record:
            raise DataError(
                f"{where}: label", None, "a label on every line", "lines without any fit next-word prediction"
            )
        check_keys(record, _FIELDS, where)
        text, label = text_of(record, where), record["label"]
        if not isinstance(label, str) or not label.strip():
            raise DataError(f"{where}: label", label, 'the name of a class, such as "refund"')
        if timed not in (None, "time" in record):
            raise DataError(f"{where}: time", record.get("time"), "a time on every line of a file or on none")
        timed = "time" in record
        if text:
            rows.append((text, label.strip(), seconds(record["time"], where) if timed else 0.0))
    return rows
