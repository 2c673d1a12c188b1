"""Context windows over messages: what a language model reads, and which of it is the person's own.

A message becomes ``<me> pieces </s>`` or ``<you> pieces </s>``; a window starts with ``<s>``. Windows are filled
greedily with whole conversations' worth of messages; when one is full the next begins with the tail of the
last as unlabelled context, so that every piece the person wrote is scored once, never without context.
Tokenizers without these marks separate messages by their end-of-sequence token instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedpeft.data.messages import Excerpt

IGNORED = -100
"""The label of positions that no loss and no metric counts (PyTorch's ``ignore_index``)."""

PAD, START, END, ME, YOU = "<pad>", "<s>", "</s>", "<me>", "<you>"


class Tokenizer(Protocol):
    """What windows need of a Hugging Face tokenizer."""

    bos_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None

    def convert_tokens_to_ids(self, tokens: str) -> Any:
        """Return the id of one token."""

    def __call__(self, text: list[str], *, add_special_tokens: bool, split_special_tokens: bool) -> Any:
        """Encode a batch of texts."""


@dataclass(frozen=True, slots=True)
class Windows:
    """A client's tokens, ready to train on.

    Parameters
    ----------
    ids : ndarray of int32, shape (n, length)
        Right-padded token ids.
    labels : ndarray of int32, shape (n, length)
        The same ids where the person's own pieces are to be predicted, ``IGNORED`` elsewhere. Not shifted.
    """

    ids: NDArray[np.int32]
    labels: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def tokens(self) -> int:
        """How many pieces are scored."""
        return int((self.labels[:, 1:] != IGNORED).sum())

    def head(self, count: int) -> Windows:
        """Return the first ``count`` windows."""
        return Windows(self.ids[:count], self.labels[:count])


@dataclass(frozen=True, slots=True)
class Marks:
    """How a tokenizer writes the limits of a message."""

    start: tuple[int, ...]
    me: tuple[int, ...]
    you: tuple[int, ...]
    end: tuple[int, ...]
    pad: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Marks:
        """Read the marks from a tokenizer's vocabulary."""

        def single(token: str) -> tuple[int, ...]:
            found = tokenizer.convert_tokens_to_ids(token)
            unknown = getattr(tokenizer, "unk_token_id", None)
            return () if found is None or found == unknown else (int(found),)

        end = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
        start = () if tokenizer.bos_token_id is None else (tokenizer.bos_token_id,)
        pad = tokenizer.pad_token_id
        return cls(start, single(ME), single(YOU), end, pad if pad is not None else (end or (0,))[0])


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

    Returns
    -------
    Windows
        Empty (n = 0) when the person wrote nothing here.
    """
    marks = Marks.of(tokenizer)
    rows = [row for excerpt in excerpts for row in _rows(*pieces(excerpt, tokenizer, marks), marks, length)]
    ids = np.full((len(rows), length), marks.pad, np.int32)
    labels = np.full((len(rows), length), IGNORED, np.int32)
    for i, (tokens, targets) in enumerate(rows):
        ids[i, : len(tokens)] = tokens
        labels[i, : len(targets)] = targets
    return Windows(ids, labels)


def pieces(excerpt: Excerpt, tokenizer: Tokenizer, marks: Marks) -> tuple[list[int], list[int]]:
    """Flatten an excerpt to tokens and labels."""
    texts = [m.text for m in excerpt.messages]
    # A typed "</s>" is four characters, not the mark: nobody's message may forge the end of another's.
    encoded = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    tokens: list[int] = []
    targets: list[int] = []
    for position, (message, pieces) in enumerate(zip(excerpt.messages, encoded, strict=True)):
        speaker = marks.me if message.mine else marks.you
        body = [*pieces, *marks.end]
        counts = message.mine and position >= excerpt.first
        tokens += [*speaker, *body]
        targets += [IGNORED] * len(speaker) + (body if counts else [IGNORED] * len(body))
    return tokens, targets


def _rows(tokens: list[int], targets: list[int], marks: Marks, length: int) -> Iterator[tuple[list[int], list[int]]]:
    """Cut one conversation into windows that overlap by a quarter; skip windows with nothing to learn."""
    room = length - len(marks.start)
    overlap = room // 4
    begin = 0
    while begin < len(tokens):
        end = min(begin + room, len(tokens))
        fresh = begin if begin == 0 else begin + overlap
        row = [IGNORED] * (fresh - begin) + targets[fresh:end]
        if any(t != IGNORED for t in ([IGNORED] * len(marks.start) + row)[1:]):
            yield [*marks.start, *tokens[begin:end]], [IGNORED] * len(marks.start) + row
        if end == len(tokens):
            return
        begin = end - overlap
