"""Labelled texts as a classifier reads them: token ids, a mask, a class each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedpeft.data.labelled import Example
from fedpeft.errors import DataError


class Tokenizer(Protocol):
    """What encoding needs of a Hugging Face tokenizer."""

    pad_token_id: int | None

    def __call__(
        self,
        text: list[str],
        *,
        add_special_tokens: bool,
        split_special_tokens: bool,
        truncation: bool,
        max_length: int,
    ) -> Any:
        """Encode a batch of texts."""


@dataclass(frozen=True, slots=True)
class Examples:
    """A client's texts, ready to train on.

    Parameters
    ----------
    ids : ndarray of int32, shape (n, t)
        Right-padded token ids; t is the length of the longest.
    mask : ndarray of bool, shape (n, t)
        True where there is text.
    classes : ndarray of int64, shape (n,)
        Indices into the federation's labels.
    first, last : int
        The client's task owns the labels in [first, last).
    """

    ids: NDArray[np.int32]
    mask: NDArray[np.bool_]
    classes: NDArray[np.int64]
    first: int
    last: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def tokens(self) -> int:
        """How many predictions are scored: one per example."""
        return len(self.ids)

    def head(self, count: int) -> Examples:
        """Return the first ``count`` examples."""
        return replace(self, ids=self.ids[:count], mask=self.mask[:count], classes=self.classes[:count])


def encode(examples: Sequence[Example], tokenizer: Tokenizer, length: int, labels: tuple[int, int]) -> Examples:
    """Encode one split of one client.

    Parameters
    ----------
    examples : sequence of Example
    tokenizer : Tokenizer
        The encoder's; it puts its own marks around a text.
    length : int
        Tokens that are read of a text, the marks included; the rest is cut off.
    labels : tuple of int
        The range [first, last) of the client's task.

    Returns
    -------
    encoded : Examples
        Empty (n = 0, t = 0) when there are none.

    Raises
    ------
    DataError
        When an example's label is outside the range.
    """
    first, last = labels
    for example in examples:
        if not first <= example.label < last:
            raise DataError("label", example.label, f"one of the client's task, from {first} to {last - 1}")
    ids, mask = padded([e.text for e in examples], tokenizer, length)
    return Examples(ids, mask, np.array([e.label for e in examples], np.int64), first, last)


def padded(texts: Sequence[str], tokenizer: Tokenizer, length: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Encode texts as rows, with the tokenizer's marks around each.

    Parameters
    ----------
    texts : sequence of str
    tokenizer : Tokenizer
        Cuts off what is too long, on the side that it is set to.
    length : int
        Most tokens of a text, the marks included.

    Returns
    -------
    ids : ndarray of int32, shape (n, t)
        Right-padded; t is the length of the longest, 0 when there are none.
    mask : ndarray of bool, shape (n, t)
        True where there is text.
    """
    rows = []
    if texts:
        # A typed "[SEP]" is five characters, not the mark.
        rows = tokenizer(
            list(texts), add_special_tokens=True, split_special_tokens=True, truncation=True, max_length=length
        )["input_ids"]
    shape = (len(rows), max(map(len, rows), default=0))
    ids, mask = np.full(shape, tokenizer.pad_token_id or 0, np.int32), np.zeros(shape, np.bool_)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = row, True
    return ids, mask
