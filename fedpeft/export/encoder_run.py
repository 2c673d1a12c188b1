"""Which classes the heads of a run tell apart, and which of them are a person's.

A federation may hold several tasks. One head has a range of classes for each; a person's bundle takes their own task's,
which are those that their classifier was trained and scored on. The adapter that all share takes all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedpeft.data import load_labelled
from fedpeft.device.folders import EVERYBODY
from fedpeft.errors import RunError

Range = tuple[int, int]


@dataclass(frozen=True)
class Classes:
    """The classes of a run.

    Parameters
    ----------
    labels : tuple of str
        In the order of the head's rows.
    people : mapping of str to tuple of int
        The range [first, last) of each client.
    """

    labels: tuple[str, ...]
    people: Mapping[str, Range]

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Classes | None:
        """Read the classes of a scenario, None when it does not classify.

        Parameters
        ----------
        settings : mapping
            The content of ``scenario.json``.

        Raises
        ------
        DataError
            When its data cannot be found: the names of the classes are there.
        """
        if settings.get("task", {}).get("kind") != "classification":
            return None
        federation = load_labelled(str(settings["data"]["federation"]))
        groups = federation.groups()
        people = {client: groups[federation.group_of(client)] for client in federation.client_ids()}
        return cls(tuple(federation.labels()), people)

    def range_of(self, owner: str) -> Range:
        """Return the classes of an adapter's owner.

        Raises
        ------
        RunError
            When nobody of that name is in the data.
        """
        if owner == EVERYBODY:
            return 0, len(self.labels)
        if owner not in self.people:
            raise RunError("client", owner, "one of the run's data", "its folder has changed since the run")
        return self.people[owner]
