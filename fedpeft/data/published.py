"""``intents`` and ``banking``: published intent data sets, divided over artificial clients.

``intents`` is CLINC150 (Larson et al. 2019, arXiv:1909.02027; CC BY 3.0): 22,500 queries to an assistant with 150
intents. ``banking`` is BANKING77 (Casanueva et al. 2020, arXiv:2003.04807; CC BY 4.0): 13,083 queries to a bank with
77. Who wrote a query is not published, so **the clients are artificial**: a Dirichlet draw over labels, not people.

``intents:clients=20,alpha=0.3,seed=1`` changes how they are divided. ``intents+banking`` has the clients of both; each
learns its own task, one range of the labels.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from fedpeft.data.dirichlet import dirichlet_partition
from fedpeft.data.labelled import Example, LabelledFederation
from fedpeft.data.options import Option, names, read_options, whole
from fedpeft.errors import DataError, nearest

BUILTIN = Path(__file__).parent / "builtin"
PUBLISHED = ("banking", "intents")


@dataclass(frozen=True, slots=True)
class Division:
    """How a pooled data set is divided over clients: the options of a name."""

    clients: int = 40
    alpha: float = 0.5
    seed: int = 0


class Divided:
    """One published data set over artificial clients.

    Parameters
    ----------
    source : str
        ``"intents"`` or ``"banking"``.
    division : Division
    name : str, optional
        What reports call it.
    """

    def __init__(self, source: str, division: Division, name: str = "") -> None:
        self.source, self.division, self.name = source, division, name or source

    def client_ids(self) -> list[str]:
        """Return ``intents-00`` and so on."""
        width = max(2, len(str(self.division.clients - 1)))
        return [f"{self.source}-{i:0{width}d}" for i in range(self.division.clients)]

    def labels(self) -> list[str]:
        """Return the intents in alphabetical order."""
        return [label for label, _ in _pooled(self.source)]

    def examples(self, client_id: str) -> list[Example]:
        """Return one client's share, in random order."""
        return self._shares[client_id]

    def groups(self) -> dict[str, tuple[int, int]]:
        """Return the one task."""
        return {self.source: (0, len(self.labels()))}

    def group_of(self, client_id: str) -> str:
        """Return the one task."""
        return self.source

    @cached_property
    def _shares(self) -> dict[str, list[Example]]:
        everything = [Example(text, i) for i, (_, texts) in enumerate(_pooled(self.source)) for text in texts]
        labels = np.array([e.label for e in everything])
        d = self.division
        parts = dirichlet_partition(labels, d.clients, d.alpha, d.seed)
        return {c: [everything[i] for i in part] for c, part in zip(self.client_ids(), parts, strict=True)}


class Union:
    """Several data sets together: the labels of one after those of another, each client with one task.

    Parameters
    ----------
    parts : sequence of LabelledFederation
        Each with one task, and with client names that no other has.
    name : str
    """

    def __init__(self, parts: Sequence[LabelledFederation], name: str) -> None:
        self.name = name
        self._owner = {client: part for part in parts for client in part.client_ids()}
        self._labels: list[str] = []
        self._groups: dict[str, tuple[int, int]] = {}
        for part in parts:
            (task,) = part.groups()
            first = len(self._labels)
            # Two data sets may have a label of the same name: both of ours have "exchange_rate".
            self._labels += [f"{task}/{label}" for label in part.labels()]
            self._groups[task] = (first, len(self._labels))
        # Interleaved, so that whoever takes the first so many clients gets all tasks.
        spread = [((i + 0.5) / len(part.client_ids()), c) for part in parts for i, c in enumerate(part.client_ids())]
        self._clients = [client for _, client in sorted(spread, key=lambda pair: pair[0])]

    def client_ids(self) -> list[str]:
        """Return the clients of all parts, interleaved."""
        return self._clients

    def labels(self) -> list[str]:
        """Return the labels of all parts, as ``task/label``."""
        return self._labels

    def examples(self, client_id: str) -> list[Example]:
        """Return one client's examples, labelled within the union."""
        first, _ = self._groups[self.group_of(client_id)]
        return [Example(e.text, e.label + first, e.time) for e in self._owner[client_id].examples(client_id)]

    def groups(self) -> dict[str, tuple[int, int]]:
        """Return each part's range of labels."""
        return self._groups

    def group_of(self, client_id: str) -> str:
        """Return the part that a client comes from."""
        return self._owner[client_id].group_of(client_id)


def is_published(name: str) -> bool:
    """Say whether a name, with or without options, is of a data set that ships with fedpeft."""
    return any(names(part, source) for part in name.split("+") for source in PUBLISHED)


def published(name: str) -> LabelledFederation:
    """Open a data set, or several joined by ``+``, each with its own options.

    Raises
    ------
    DataError
        Naming the part or the option that is wrong.
    """
    parts: dict[str, LabelledFederation] = {}
    for part in name.split("+"):
        source, _, options = part.partition(":")
        if source not in PUBLISHED:
            raise DataError("data.federation", source, "a known data set", nearest(source, PUBLISHED))
        if source in parts:
            raise DataError("data.federation", name, f"{source} once")
        parts[source] = Divided(source, _division(options), part)
    return Union(list(parts.values()), name) if len(parts) > 1 else parts[source]


def _concentration(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0.001 <= value <= 1e6 else None


_OPTIONS = {
    "clients": Option(whole(2, 1000), "a whole number from 2 to 1000"),
    "alpha": Option(_concentration, "a number from 0.001 (few labels each) to 1e6 (all alike)"),
    "seed": Option(whole(0, 2**31), "a whole number from 0"),
}


def _division(options: str) -> Division:
    chosen = read_options(options, _OPTIONS, "intents:clients=20,alpha=0.3")
    return Division(**chosen)  # type: ignore[arg-type]  # each option's reader gives its field's type


@cache
def _pooled(source: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return (label, texts) pairs in alphabetical order."""
    with gzip.open(BUILTIN / f"{source}.jsonl.gz", "rt", encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    return tuple((record["label"], tuple(record["texts"])) for record in records)
