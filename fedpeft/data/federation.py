"""The protocol of a federated dataset, and how a scenario names one.

A federation is anything with a ``name``, ``client_ids()`` and ``conversations(client_id)``. A scenario names
it as ``keyboard`` or ``shakespeare``, as a folder with one JSONL file per person, or as ``module:callable``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fedpeft.data.enrolled import ENROLLED, EnrolledFederation
from fedpeft.data.messages import Conversation
from fedpeft.data.options import names
from fedpeft.data.split import Split, temporal_split
from fedpeft.errors import DataError, nearest


class Federation(Protocol):
    """A set of clients and their conversations. Three members are all that a user's own data needs."""

    @property
    def name(self) -> str:
        """What reports call the dataset."""

    def client_ids(self) -> Sequence[str]:
        """Return the clients' names, unique, in a fixed order."""

    def conversations(self, client_id: str) -> Iterable[Conversation]:
        """Return everything one client has, each conversation in order of time."""


@dataclass(frozen=True, slots=True)
class Client:
    """One person: a name and a history divided in time.

    Parameters
    ----------
    id : str
        The client's name within the federation.
    split : Split
        Earlier messages to train on, then validation, then test.
    """

    id: str
    split: Split

    @classmethod
    def of(cls, federation: Federation, client_id: str) -> Client:
        """Read one client of a federation and divide their history."""
        return cls(client_id, temporal_split(federation.conversations(client_id)))


def load_federation(name: str, root: Path | None = None) -> Federation:
    """Find a federation by the name a scenario gives it.

    Parameters
    ----------
    name : str
        ``"enrolled"``, ``"keyboard"``, ``"shakespeare"``, also with options as in
        ``"shakespeare:clients=32,least=100"``, the path of a folder of ``*.jsonl`` files, or ``"module:callable"``.
    root : Path, optional
        What a relative path is relative to; the working directory when not given.

    Returns
    -------
    Federation

    Raises
    ------
    DataError
        When there is no such federation or it has no clients.
    """
    if name == ENROLLED:
        return EnrolledFederation()
    if name == "keyboard":
        from fedpeft.data.keyboard import KeyboardFederation

        return KeyboardFederation()
    if names(name, "shakespeare"):
        from fedpeft.data.shakespeare import shakespeare

        return shakespeare(name)
    folder = (root or Path.cwd()) / name
    if folder.is_dir():
        from fedpeft.data.instructions import InstructionFederation, holds_instructions
        from fedpeft.data.jsonl import JsonlFederation

        return InstructionFederation(folder) if holds_instructions(folder) else JsonlFederation(folder)
    from fedpeft.data.published import is_published

    if is_published(name):
        raise DataError(
            "data.federation", name, "people's messages; these are labelled texts", "they need a classification task"
        )
    if ":" in name:
        from fedpeft.data.callables import CallableFederation

        return CallableFederation(name)
    raise DataError(
        "data.federation",
        name,
        "'enrolled', 'keyboard', 'shakespeare', a folder of JSONL files, or 'module:callable'",
        nearest(name, [ENROLLED, "keyboard", "shakespeare"]) if "/" not in name else f"no folder {folder} exists",
    )
