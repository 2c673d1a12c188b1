"""Context windows over messages: what a language model reads, and which of it is the person's own.

A message becomes ``<me> pieces </s>`` or ``<you> pieces </s>``; a window starts with ``<s>``. Windows are filled
greedily with whole conversations' worth of messages; when one is full the next begins with the tail of the
last as unlabelled context, so that every piece the person wrote is scored once, never without context.
A base with a chat template reads what its template would make of the messages, the person whose data it is being the
assistant (:mod:`fedpeft.data.marks`). Tokenizers without either separate messages by their end-of-sequence token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpeft.data.marks import Marks, Tokenizer
from fedpeft.data.messages import Excerpt
from fedpeft.errors import DataError

_LEAST = 7
"""Tokens of a window after its start."""

IGNORED = -100
"""The label of positions that no loss and no metric counts (PyTorch's ``ignore_index``)."""


@dataclass(frozen=True, slots=True)
class Windows:
    """A client's tokens, ready to train on.

    Parameters
    ----------
    ids : ndarray of int32, shape (n, length)
        Right-padded token ids.
    labels : ndarray of int32, shape (n, length)
        The same ids where the person's own pieces are to be predicted, ``IGNORED`` elsewhere. Not shifted.
    positions : ndarray of int32, shape (n, length), optional
        Where a row holds several examples: the place of each token in its own, 0 where one begins and in padding.
    """

    ids: NDArray[np.int32]
    labels: NDArray[np.int32]
    positions: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def tokens(self) -> int:
        """How many pieces are scored."""
        return int((self.labels[:, 1:] != IGNORED).sum())

    def head(self, count: int) -> Windows:
        """Return the first ``count`` windows."""
        return self[np.arange(min(count, len(self)))]

    def __getitem__(self, rows: NDArray[np.int64]) -> Windows:
        """Return the windows of these numbers."""
        return Windows(self.ids[rows], self.labels[rows], None if self.positions is None else self.positions[rows])


def windows(excerpts: Iterable[Excerpt], tokenizer: Tokenizer, length: int) -> Windows:
    """Encode one split of one client.

    Parameters
    ----------
    excerpts : iterable of Excerpt
        In order of time.
    tokenizer : Tokenizer
        The base model's.
    length : int
        Tokens per window, at least 8.

    Raises
    ------
    DataError
        When what a context begins with leaves no room in it.

    Returns
    -------
    Windows
        Empty (n = 0) when the person wrote nothing here.
    """
    marks = Marks.of(tokenizer)
    require_room(marks.start, length)
    rows = [row for excerpt in excerpts for row in overlapping(*pieces(excerpt, tokenizer, marks), marks.start, length)]
    ids = np.full((len(rows), length), marks.pad, np.int32)
    labels = np.full((len(rows), length), IGNORED, np.int32)
    for i, (tokens, targets) in enumerate(rows):
        ids[i, : len(tokens)] = tokens
        labels[i, : len(targets)] = targets
    return Windows(ids, labels)


def require_room(start: Sequence[int], length: int) -> None:
    """Refuse a window that what it begins with fills up.

    Raises
    ------
    DataError
    """
    if length - len(start) < _LEAST:
        raise DataError("data.window", length, f"at least {len(start) + _LEAST}: this base's contexts begin with marks")


def pieces(excerpt: Excerpt, tokenizer: Tokenizer, marks: Marks) -> tuple[list[int], list[int]]:
    """Flatten an excerpt to tokens and labels."""
    texts = [m.text for m in excerpt.messages]
    # A typed "</s>" is four characters, not the mark: nobody's message may forge the end of another's.
    encoded = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    tokens: list[int] = []
    targets: list[int] = []
    for position, (message, pieces) in enumerate(zip(excerpt.messages, encoded, strict=True)):
        speaker, after = (marks.me, marks.after) if message.mine else (marks.you, marks.after_you)
        body = [*pieces, *marks.end] if message.mine else [*pieces, *marks.end_you]
        counts = message.mine and position >= excerpt.first
        tokens += [*speaker, *body, *after]
        targets += [IGNORED] * len(speaker) + (body if counts else [IGNORED] * len(body)) + [IGNORED] * len(after)
    return tokens, targets


def overlapping(
    tokens: Sequence[int], targets: Sequence[int], start: Sequence[int], length: int
) -> Iterator[tuple[list[int], list[int]]]:
    """Cut a text into windows that overlap by a quarter; skip windows with nothing to learn.

    Parameters
    ----------
    tokens, targets : sequence of int
        Ids and labels, of one length.
    start : sequence of int
        What each window begins with.
    length : int

    Yields
    ------
    tokens, targets : list of int
        Of one window, at most ``length``.
    """
    room = length - len(start)
    overlap = room // 4
    begin = 0
    while begin < len(tokens):
        end = min(begin + room, len(tokens))
        fresh = begin if begin == 0 else begin + overlap
        row = [IGNORED] * (len(start) + fresh - begin) + [*targets[fresh:end]]
        if any(t != IGNORED for t in row[1:]):
            yield [*start, *tokens[begin:end]], row
        if end == len(tokens):
            return
        begin = end - overlap
