"""Which reply would this person give? Contexts and replies as vectors of one encoder, learnt from their own pairs.

With e the mean of the last hidden states, x a context and y₁ … yₘ the replies it is told from,

    s(x, y) = τ e(x)·e(y) / (‖e(x)‖ ‖e(y)‖),      loss = -log( exp s(x, y_own) / Σⱼ exp s(x, yⱼ) )

In training the yⱼ are the batch's replies (multiple negatives: Henderson et al. 2017, arXiv:1705.00652), equal ones
counted once, so that nobody's reply is a wrong answer to itself. In evaluation they are the own reply and nine others
that **the same person** wrote in the same split, drawn by the client's name alone: what is asked is which of ten things
that a person does say fits here. Who has fewer than ten different replies in a split is not scored on it.

Only the adapter learns; there is no head. A batch taken in parts compares each part's contexts with all its replies,
so the parts' gradients add up to the batch's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from fedpeft.base import Base
from fedpeft.data import Client
from fedpeft.data.card import card, spread
from fedpeft.data.examples import padded
from fedpeft.data.federation import Federation
from fedpeft.data.messages import Excerpt
from fedpeft.data.pairs import pairs
from fedpeft.device.similarity import SCALE
from fedpeft.seeds import stream
from fedpeft.tasks.classification import mean_pooled, words
from fedpeft.tasks.task import Batch, Splits, Task

CANDIDATES = 10
"""Replies that a held-out context is told from, the own one among them."""

_SEED = 0


@dataclass(frozen=True, slots=True)
class Texts:
    """Encoded texts.

    Parameters
    ----------
    ids : ndarray of int32, shape (n, t)
    mask : ndarray of bool, shape (n, t)
    """

    ids: NDArray[np.int32]
    mask: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)

    def tensors(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return some of them, cut to the longest; int64, shape (b, t)."""
        length = max(1, int(self.mask[rows].sum(axis=1).max()))
        ids, mask = (torch.from_numpy(part[rows, :length].astype(np.int64)) for part in (self.ids, self.mask))
        return ids, mask


@dataclass(frozen=True, slots=True)
class Ranked:
    """One split of a client's pairs.

    Parameters
    ----------
    contexts : Texts
        n of them.
    replies : Texts
        m different ones.
    own : ndarray of int64, shape (n,)
        Which reply each context had.
    drawn : ndarray of int64, shape (n, c), optional
        The replies that each context is told from, the own one last; all of a batch's when not given.
    """

    contexts: Texts
    replies: Texts
    own: NDArray[np.int64]
    drawn: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.own)

    @property
    def tokens(self) -> int:
        """How many predictions are scored: one per context."""
        return len(self.own)

    def head(self, count: int) -> Ranked:
        """Return the first ``count`` contexts."""
        return self.rows(slice(count))

    def rows(self, chosen: slice) -> Ranked:
        """Return some of the contexts; all replies stay."""
        drawn = None if self.drawn is None else self.drawn[chosen]
        contexts = Texts(self.contexts.ids[chosen], self.contexts.mask[chosen])
        return replace(self, contexts=contexts, own=self.own[chosen], drawn=drawn)


class Ranking(Task[Ranked]):
    """Reply ranking on each client's own conversations.

    Parameters
    ----------
    base : Base
        An encoder without a head.
    federation : Federation
    length : int
        Tokens that are read of a context, its end, and of a reply, its beginning.
    most : int, optional
        Keep only the latest so many training pairs of a client.
    """

    kind: ClassVar[str] = "reply_ranking"

    def __init__(self, base: Base, federation: Federation, length: int, most: int | None = None) -> None:
        super().__init__(base, length)
        self.federation, self._most = federation, most
        # What is said last is what is answered: a long context loses its beginning.
        self._from_the_end = deepcopy(base.tokenizer)
        self._from_the_end.truncation_side = "left"

    @property
    def name(self) -> str:
        """The federation's name."""
        return self.federation.name

    def client_ids(self) -> Sequence[str]:
        """Return the federation's clients."""
        return self.federation.client_ids()

    def describe(self, clients: Sequence[str]) -> dict[str, Any]:
        """Count messages, words and replies."""
        described = card(self.federation, clients)
        splits = [Client.of(self.federation, client).split for client in clients]
        for part in ("train", "validation", "test"):
            described[part]["replies"] = spread([len(pairs(getattr(split, part))) for split in splits])
        return described

    def splits(self, client: str) -> Splits[Ranked]:
        """Encode one client's pairs, and draw what held-out contexts are told from."""
        split = Client.of(self.federation, client).split
        train = self._encode(split.train)
        if self._most:
            train = train.rows(slice(-self._most, None))
        validation, test = (
            drawn(self._encode(part), stream(_SEED, "distractors", client, name))
            for name, part in (("validation", split.validation), ("test", split.test))
        )
        messages = sum(len(e.mine()) for e in split.train + split.validation + split.test)
        return Splits(train, validation, test, messages)

    def batches(self, examples: Ranked, order: np.ndarray, size: int) -> Iterator[Batch]:
        """Yield batches; labels are the replies that each context is told from, its own last."""
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            told_from = examples.own[rows][:, None] if examples.drawn is None else examples.drawn[rows]
            used, places = np.unique(told_from, return_inverse=True)
            labels = places.reshape(told_from.shape)
            if examples.drawn is None:
                labels = np.stack([np.append(np.delete(np.arange(len(used)), own), own) for (own,) in labels])
            ids, mask = examples.contexts.tensors(rows)
            yield Batch(ids, torch.from_numpy(labels), mask, replies=examples.replies.tensors(used))

    def fullest(self, size: int) -> Batch:
        """Return contexts of full length, each with a reply of its own of full length."""
        ids = torch.zeros(size, self.length, dtype=torch.int64)
        mask = torch.ones_like(ids)
        return Batch(ids, torch.arange(size).repeat(size, 1), mask, replies=(ids, mask))

    def order(self, examples: Ranked) -> np.ndarray:
        """Return the contexts by length."""
        return np.argsort(-examples.contexts.mask.sum(axis=1), kind="stable")

    def predictions(self, batch: Batch) -> int:
        """Return one per context."""
        return len(batch.ids)

    def predict(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return scaled cosines of the replies that a context is told from, and the place of its own: the last."""
        encoder: Any = model
        read = batch.to(encoder.device)
        assert read.mask is not None and read.replies is not None  # noqa: S101 - batches() always gives them
        scores = SCALE * embedded(encoder, read.ids, read.mask) @ embedded(encoder, *read.replies).T
        logits = scores.gather(1, batch.labels.to(encoder.device))
        return logits, torch.full((len(logits),), logits.shape[1] - 1, device=logits.device)

    def replaceable(self, batch: Batch) -> Tensor:
        """Return the words of the contexts."""
        return words(batch)

    def _encode(self, excerpts: Sequence[Excerpt]) -> Ranked:
        found = pairs(excerpts)
        replies, mask = padded([p.reply for p in found], self.base.tokenizer, self.length)
        # Equal as the encoder reads them: it may not see case, or what is beyond its window.
        rows, first, own = np.unique(replies, axis=0, return_index=True, return_inverse=True)
        contexts = Texts(*padded([p.context for p in found], self._from_the_end, self.length))
        return Ranked(contexts, Texts(rows, mask[first]), own.reshape(-1).astype(np.int64))


def embedded(encoder: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """Return the mean hidden state of each text at length one; float32, shape (b, d)."""
    hidden = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    return F.normalize(mean_pooled(hidden, mask).float(), dim=-1)


def drawn(examples: Ranked, chance: np.random.Generator) -> Ranked:
    """Draw what each context is told from; nothing is left where there are fewer than ``CANDIDATES`` replies.

    Parameters
    ----------
    examples : Ranked
    chance : numpy.random.Generator
    """
    count = len(examples.replies)
    if count < CANDIDATES:
        return examples.head(0)
    others = [chance.choice(count - 1, CANDIDATES - 1, replace=False) for _ in examples.own]
    # The own one is skipped by counting on behind it.
    told_from = [np.append(o + (o >= own), own) for o, own in zip(others, examples.own, strict=True)]
    return replace(examples, drawn=np.array(told_from, np.int64).reshape(-1, CANDIDATES))
