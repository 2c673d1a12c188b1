"""The shape of a task: clients' examples, batches, and logits with their targets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from fedpeft.base import Base
from fedpeft.data.windows import IGNORED
from fedpeft.errors import ScenarioError


class Encoded(Protocol):
    """One split of one client's examples, encoded for the base."""

    def __len__(self) -> int: ...

    @property
    def tokens(self) -> int:
        """How many predictions are scored: pieces of text, or labelled examples."""

    def head(self, count: int) -> Self:
        """Return the first ``count`` examples."""


E = TypeVar("E", bound=Encoded)
_SHORTEST = 16


@dataclass(frozen=True, slots=True)
class Splits(Generic[E]):
    """One client's examples.

    Parameters
    ----------
    train, validation, test : Encoded
    messages : int
        Messages or texts of the client's own, in all three.
    """

    train: E
    validation: E
    test: E
    messages: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What a model is given at once.

    Parameters
    ----------
    ids : Tensor of int64, shape (b, t)
        Token ids, right-padded.
    labels : Tensor of int64
        As the task reads them.
    mask : Tensor of int64, shape (b, t), optional
        1 where there is text. Causal models need none: what follows cannot be seen.
    pixels : Tensor of float32, shape (b, 3, height, width), optional
        The images that the text is about.
    positions : Tensor of int64, shape (b, t), optional
        Where rows hold several examples: each token's place in its own, 0 where one begins and in padding.
    replies : tuple of Tensor of int64, shape (m, u), optional
        Ids and mask of texts that rows are compared with; each part of a batch has them all.
    """

    ids: Tensor
    labels: Tensor
    mask: Tensor | None = None
    pixels: Tensor | None = None
    positions: Tensor | None = None
    replies: tuple[Tensor, Tensor] | None = None

    def with_ids(self, ids: Tensor) -> Batch:
        """Return the same batch with other token ids."""
        return replace(self, ids=ids)

    def to(self, device: torch.device) -> Batch:
        """Return the same batch with what a model reads on its device; labels stay, which are counted first."""
        mask, pixels, positions = (
            None if t is None else t.to(device) for t in (self.mask, self.pixels, self.positions)
        )
        replies = None if self.replies is None else (self.replies[0].to(device), self.replies[1].to(device))
        return Batch(self.ids.to(device), self.labels, mask, pixels, positions, replies)

    def rows(self, start: int, stop: int) -> Batch:
        """Return some of the rows."""
        aligned = (self.mask, self.pixels, self.positions)
        mask, pixels, positions = (None if t is None else t[start:stop] for t in aligned)
        return Batch(self.ids[start:stop], self.labels[start:stop], mask, pixels, positions, self.replies)


class Task(ABC, Generic[E]):
    """Examples and their scoring for one base and one set of clients.

    Parameters
    ----------
    base : Base
    length : int
        Most tokens of an example.
    """

    kind: ClassVar[str]

    def __init__(self, base: Base, length: int) -> None:
        self.base, self.length = base, length

    def over(self, base: Base) -> Self:
        """Return the same examples over another copy of the base: how it is held does not change how they are read."""
        other = copy(self)
        other.base = base
        return other

    def cut(self, length: int) -> Self:
        """Return the same clients' examples, of at most ``length`` tokens."""
        other = copy(self)
        other.length = length
        return other

    @property
    def shortest(self) -> int:
        """Tokens below which an example is not worth reading."""
        return _SHORTEST

    @property
    @abstractmethod
    def name(self) -> str:
        """What reports call the dataset."""

    @abstractmethod
    def client_ids(self) -> Sequence[str]:
        """Return the clients' names in a fixed order."""

    @abstractmethod
    def describe(self, clients: Sequence[str]) -> dict[str, Any]:
        """Return counts of the clients' data for the record: how much there is, never what."""

    @abstractmethod
    def splits(self, client: str) -> Splits[E]:
        """Read and encode one client's examples."""

    @abstractmethod
    def batches(self, examples: E, order: np.ndarray, size: int) -> Iterator[Batch]:
        """Yield batches of examples in the given order."""

    def fullest(self, size: int) -> Batch:
        """Return a batch that no batch of ``size`` examples takes more memory than; what is in it means nothing.

        Raises
        ------
        ScenarioError
            When that is not known beforehand.
        """
        raise ScenarioError("training.memory", "a budget", "a task of texts", f"leave it out for {self.kind}")

    def predictions(self, batch: Batch) -> int:
        """Return how many targets a batch has; by default every labelled position but the first."""
        return int((batch.labels[:, 1:] != IGNORED).sum())

    @abstractmethod
    def predict(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return logits (float32, shape (n, classes)) and targets (int64, shape (n,)) of a batch."""

    @abstractmethod
    def order(self, examples: E) -> np.ndarray:
        """Return the order in which evaluation reads examples: longest first, so that batches waste no padding."""

    def features(self, model: nn.Module, batch: Batch) -> tuple[Tensor, nn.Module, Tensor] | None:
        """Return hidden states (n, d), the head that makes logits of them, and targets; None if they do not divide."""
        return None

    def count(self, logits: Tensor, targets: Tensor) -> tuple[float, float]:
        """Return the keystrokes saved and those needed without suggestions; zero where nothing is typed."""
        return 0.0, 0.0

    def replaceable(self, batch: Batch) -> Tensor:
        """Return which positions augmentation may change: text that is not itself a target; bool, shape (b, t)."""
        return batch.mask.bool() if batch.mask is not None else batch.ids == batch.ids
