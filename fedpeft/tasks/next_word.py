"""Predict the pieces that a person wrote, each from what came before it.

In a chat only about half of the positions are labelled, and on small machines the vocabulary projection and its
softmax are the largest tensors of all. So the decoder runs on every position and the head on the labelled ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from fedpeft.base import Base
from fedpeft.data import Client
from fedpeft.data.card import card
from fedpeft.data.federation import Federation
from fedpeft.data.marks import Marks
from fedpeft.data.windows import IGNORED, Windows, windows
from fedpeft.tasks.apart import reading
from fedpeft.tasks.keystrokes import Keystrokes
from fedpeft.tasks.task import Batch, Splits, Task


class NextWord(Task[Windows]):
    """Next-word prediction on each client's own messages.

    Parameters
    ----------
    base : Base
        A causal language model without logit scaling after its head.
    federation : Federation
    window : int
        Tokens per window.
    max_windows : int, optional
        Keep only the latest so many training windows of a client.
    """

    kind: ClassVar[str] = "next_word"

    def __init__(self, base: Base, federation: Federation, window: int, max_windows: int | None = None) -> None:
        super().__init__(base, window)
        self.federation, self._max = federation, max_windows

    @property
    def name(self) -> str:
        """The federation's name."""
        return self.federation.name

    def client_ids(self) -> Sequence[str]:
        """Return the federation's clients."""
        return self.federation.client_ids()

    def describe(self, clients: Sequence[str]) -> dict[str, Any]:
        """Count messages and words."""
        return card(self.federation, clients)

    def splits(self, client: str) -> Splits[Windows]:
        """Cut one client's conversations into windows."""
        split = Client.of(self.federation, client).split
        train, validation, test = (
            windows(part, self.base.tokenizer, self.length) for part in (split.train, split.validation, split.test)
        )
        if self._max:
            train = train[np.arange(len(train))[-self._max :]]
        messages = sum(len(e.mine()) for e in split.train + split.validation + split.test)
        return Splits(train, validation, test, messages)

    def batches(self, examples: Windows, order: np.ndarray, size: int) -> Iterator[Batch]:
        """Yield batches, each cut to its last label: causal attention does not see what follows."""
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            some = examples[rows]
            length = int(np.flatnonzero((some.labels != IGNORED).any(axis=0)).max(initial=1)) + 1
            ids, labels, positions = (
                None if numbers is None else torch.from_numpy(numbers[:, :length].astype(np.int64))
                for numbers in (some.ids, some.labels, some.positions)
            )
            assert ids is not None and labels is not None  # noqa: S101 - only positions may be absent
            yield Batch(ids, labels, positions=positions)

    @property
    def shortest(self) -> int:
        """At least half of a window is text, after what every window begins with."""
        return max(super().shortest, 2 * len(Marks.of(self.base.tokenizer).start))

    def fullest(self, size: int) -> Batch:
        """Return windows in which every piece is a target."""
        ids = torch.zeros(size, self.length, dtype=torch.int64)
        return Batch(ids, ids)

    def order(self, examples: Windows) -> np.ndarray:
        """Return the windows by the place of their last label."""
        if not len(examples):
            return np.zeros(0, int)
        return np.argsort(-(examples.labels != IGNORED).cumsum(axis=1).argmax(axis=1), kind="stable")

    def features(self, model: nn.Module, batch: Batch) -> tuple[Tensor, nn.Module, Tensor]:
        """Run the decoder and return the hidden states of the labelled positions."""
        causal: Any = model
        decoder = getattr(causal, causal.base_model_prefix)
        dtype = causal.get_input_embeddings().weight.dtype
        hidden = decoder(**reading(batch.to(causal.device), dtype), use_cache=False).last_hidden_state
        return labelled(hidden, batch.labels, causal.get_output_embeddings())

    def predict(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return logits and targets of the labelled positions."""
        hidden, head, targets = self.features(model, batch)
        return head(hidden).float(), targets

    def count(self, logits: Tensor, targets: Tensor) -> tuple[float, float]:
        """Count keystrokes."""
        return self._keystrokes.count(logits, targets)

    def replaceable(self, batch: Batch) -> Tensor:
        """Return the context: what is read but not predicted, and not the first mark."""
        own = batch.labels != IGNORED
        read = own.flip(1).cumsum(dim=1).flip(1) > 0
        free = read & ~own
        free[:, 0] = False
        return free if batch.positions is None else free & (batch.positions > 0)

    @cached_property
    def _keystrokes(self) -> Keystrokes:
        return Keystrokes(self.base.tokenizer, int(self.base.model.config.vocab_size))


def labelled(hidden: Tensor, labels: Tensor, head: nn.Module) -> tuple[Tensor, nn.Module, Tensor]:
    """Return the hidden states before labelled positions, the head, and the labels there.

    Parameters
    ----------
    hidden : Tensor, shape (b, t, d)
    labels : Tensor of int64, shape (b, t)
        Not shifted; ``IGNORED`` where nothing is predicted.
    head : nn.Module
    """
    targets = labels[:, 1:]
    counted = targets != IGNORED
    # Counted where the labels are, so that a device need not be asked how many there are.
    rows, places = counted.nonzero(as_tuple=True)
    at = (rows * labels.shape[1] + places).to(hidden.device)
    return hidden.flatten(0, 1).index_select(0, at), head, targets[counted].to(hidden.device)
