"""The protocol of labelled federations, for classification, and how a scenario names one.

Every example has one of the federation's labels. A federation may hold several tasks: each owns a range of the labels,
and each client belongs to one task.

A client's examples are split 60 : 20 : 20, in time where times differ. Where they do not, they are ordered by label, at
random within and between labels, and dealt out in fives: so the shares hold overall, and within each label up to one
example. Chance hangs on the client's name alone: every engine, device and restart splits alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np

from fedpeft.data.options import names
from fedpeft.errors import DataError, nearest
from fedpeft.seeds import stream

_SEED = 0
# How five examples are dealt; of fewer, the first of these: one example trains, a second one tests.
_DEAL = ("train", "test", "train", "validation", "train")


@dataclass(frozen=True, slots=True)
class Example:
    """A text and what it is.

    Parameters
    ----------
    text : str
    label : int
        Index into the federation's labels.
    time : float
        In seconds; only the order matters, and only where times differ.
    """

    text: str
    label: int
    time: float = 0.0


@dataclass(frozen=True, slots=True)
class LabelledSplit:
    """Three parts of one client's examples: in order of time, or in random order where there are no times."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]


class LabelledFederation(Protocol):
    """A set of clients and their labelled examples."""

    @property
    def name(self) -> str:
        """What reports call the dataset."""

    def client_ids(self) -> Sequence[str]:
        """Return the clients' names, unique, in a fixed order."""

    def labels(self) -> list[str]:
        """Return the names of all labels, unique; an example's label is an index into them."""

    def examples(self, client_id: str) -> Sequence[Example]:
        """Return everything one client has."""

    def groups(self) -> Mapping[str, tuple[int, int]]:
        """Return each task's range [first, last) of labels; one task has them all."""

    def group_of(self, client_id: str) -> str:
        """Return the task that a client belongs to."""


def split_of(federation: LabelledFederation, client_id: str) -> LabelledSplit:
    """Read one client of a federation and divide their examples."""
    return labelled_split(federation.examples(client_id), client_id)


def labelled_split(examples: Sequence[Example], client_id: str) -> LabelledSplit:
    """Divide one client's examples: 60 % to train, 20 % to validation, 20 % to test.

    Parameters
    ----------
    examples : sequence of Example
    client_id : str
        The client's name, which seeds chance.

    Returns
    -------
    LabelledSplit
        Earlier examples train and later ones test when times differ. Parts may be empty below four examples.
    """
    dealt = [_DEAL[i % len(_DEAL)] for i in range(len(examples))]
    if len({e.time for e in examples}) > 1:
        ordered = sorted(examples, key=lambda e: e.time)
        train, validation = dealt.count("train"), dealt.count("validation")
        cuts = (0, train, train + validation, len(ordered))
        return LabelledSplit(*(tuple(ordered[a:b]) for a, b in pairwise(cuts)))
    rng = stream(_SEED, "labelled split", client_id)
    place = {label: rng.random() for label in sorted({e.label for e in examples})}
    ordered = sorted(_shuffled(examples, rng), key=lambda e: place[e.label])
    parts = (
        [e for e, to in zip(ordered, dealt, strict=True) if to == part] for part in ("train", "validation", "test")
    )
    # By label no longer: whoever takes the first or the last few of a part gets a fair sample of it.
    return LabelledSplit(*(tuple(_shuffled(part, rng)) for part in parts))


def _shuffled(examples: Sequence[Example], rng: np.random.Generator) -> list[Example]:
    return [examples[i] for i in rng.permutation(len(examples))]


def load_labelled(name: str, root: Path | None = None) -> LabelledFederation:
    """Find a labelled federation by the name a scenario gives it.

    Parameters
    ----------
    name : str
        ``"intents"``, ``"banking"``, with options as in ``"intents:clients=20,alpha=0.3"``, several joined by ``+``, or
        the path of a folder of ``*.jsonl`` files with a ``label`` on every line.
    root : Path, optional
        What a relative path is relative to; the working directory when not given.

    Returns
    -------
    LabelledFederation

    Raises
    ------
    DataError
        When there is no such federation, or an option is wrong.
    """
    from fedpeft.data.published import PUBLISHED, is_published, published

    if is_published(name):
        return published(name)
    folder = (root or Path.cwd()) / name
    if folder.is_dir():
        from fedpeft.data.labelled_jsonl import LabelledJsonlFederation

        return LabelledJsonlFederation(folder)
    if name == "keyboard" or names(name, "shakespeare"):
        remedy = f"it is people's messages, without labels; labelled are {', '.join(PUBLISHED)}"
    else:
        remedy = nearest(name, [*PUBLISHED, "+".join(PUBLISHED)]) if "/" not in name else f"no folder {folder} exists"
    raise DataError(
        "data.federation", name, f"{', '.join(map(repr, PUBLISHED))} or a folder of JSONL files with labels", remedy
    )
