"""Finished pieces of a comparison, one JSON line each: what Ctrl-C leaves, and what a later run need not repeat."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from fedpeft.compare.children import FAILED, Answer
from fedpeft.errors import RunError

_HEAD = "comparison"


class Store:
    """The pieces of one comparison.

    Parameters
    ----------
    path : Path
        A file of JSON lines; made when missing.
    decisive : mapping
        What decides the numbers of every piece.

    Raises
    ------
    RunError
        When the file holds another comparison, or cannot be read.
    """

    def __init__(self, path: Path, decisive: Mapping[str, Any]) -> None:
        self._path = path
        self._key = sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
        self._pieces: dict[str, Answer] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = path.read_text(encoding="utf-8") if path.exists() else ""
        # What follows the last line break was being written when the run was stopped.
        kept = whole[: whole.rfind("\n") + 1]
        if kept:
            self._read(kept)
            if kept != whole:
                path.write_text(kept, encoding="utf-8")
        else:
            path.write_text(json.dumps({_HEAD: self._key}) + "\n", encoding="utf-8")

    def get(self, name: str, own: Mapping[str, Any]) -> Answer | None:
        """Return a finished piece, if it was made with the same settings of the method."""
        found = self._pieces.get(_label(name, own))
        return None if found is None or FAILED in found else found

    def put(self, name: str, own: Mapping[str, Any], answer: Answer) -> None:
        """Keep a piece; on disk before this returns."""
        label = _label(name, own)
        self._pieces[label] = answer
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"piece": label, "answer": answer}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _read(self, text: str) -> None:
        try:
            head, *lines = (json.loads(line) for line in text.split("\n")[:-1])
            key = head[_HEAD]
            self._pieces = {line["piece"]: dict(line["answer"]) for line in lines}
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"comparison {self._path}", str(error), "lines that compare wrote", "take another --out"
            ) from error
        if key != self._key:
            raise RunError(
                f"comparison {self._path}",
                "one of another scenario, other sizes or steps",
                "the same to go on with",
                "take another --out, or remove the file",
            )


def _label(name: str, own: Mapping[str, Any]) -> str:
    return f"{name} {json.dumps(own, sort_keys=True)}"
