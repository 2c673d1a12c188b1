"""Name the class of a text. Clients of several tasks can learn together: each sees its own task's classes alone.

One head holds the classes of all tasks, one range of rows per task, and a client's logits are its range. That is the
same as one head per task over a shared adapter (multi-task learning, Caruana 1997), as one tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from fedpeft.base import Base
from fedpeft.data.card import spread
from fedpeft.data.examples import Examples, encode
from fedpeft.data.labelled import LabelledFederation, split_of
from fedpeft.errors import ScenarioError
from fedpeft.tasks.task import Batch, Splits, Task


class Classification(Task[Examples]):
    """Text classification.

    Parameters
    ----------
    base : Base
        A sequence classifier with as many labels as the federation.
    federation : LabelledFederation
    length : int
        Tokens that are read of a text.
    max_examples : int, optional
        Keep only the latest so many training examples of a client.
    pooling : {"mean", "model"}
        What the head reads: the mean of the last hidden states, as sentence encoders are trained to give (Reimers &
        Gurevych 2019, arXiv:1908.10084), or the architecture's own pooler.

    Raises
    ------
    ScenarioError
        When the head is more than one linear layer, and so made for what its architecture pools.
    """

    kind: ClassVar[str] = "classification"

    def __init__(
        self,
        base: Base,
        federation: LabelledFederation,
        length: int,
        max_examples: int | None = None,
        pooling: str = "mean",
    ) -> None:
        super().__init__(base, length)
        if pooling == "mean" and not isinstance(getattr(base.model, "classifier", None), nn.Linear):
            kind = type(base.model).__name__
            raise ScenarioError("task.pooling", "mean", "'model'", f"the head of {kind} is not one linear layer")
        self.federation, self._max, self._pooling = federation, max_examples, pooling

    @property
    def name(self) -> str:
        """The federation's name."""
        return self.federation.name

    def client_ids(self) -> Sequence[str]:
        """Return the federation's clients."""
        return self.federation.client_ids()

    def describe(self, clients: Sequence[str]) -> dict[str, Any]:
        """Count texts, words and classes."""
        splits = [split_of(self.federation, client) for client in clients]
        described: dict[str, Any] = {
            "federation": self.name,
            "clients": len(clients),
            "classes": len(self.federation.labels()),
            "split": "60 % train, 20 % validation, 20 % test of each client's texts",
        }
        for part in ("train", "validation", "test"):
            own = [getattr(split, part) for split in splits]
            described[part] = {
                "messages": spread([len(texts) for texts in own]),
                "words": spread([sum(len(e.text.split()) for e in texts) for texts in own]),
                "classes": spread([len({e.label for e in texts}) for texts in own]),
            }
        return described

    def splits(self, client: str) -> Splits[Examples]:
        """Encode one client's examples."""
        split = split_of(self.federation, client)
        classes = self.federation.groups()[self.federation.group_of(client)]
        parts = (split.train[-self._max :] if self._max else split.train, split.validation, split.test)
        train, validation, test = (encode(part, self.base.tokenizer, self.length, classes) for part in parts)
        return Splits(train, validation, test, sum(len(part) for part in (split.train, split.validation, split.test)))

    def batches(self, examples: Examples, order: np.ndarray, size: int) -> Iterator[Batch]:
        """Yield batches, each cut to its longest text; labels are (class, first, last) rows."""
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            length = max(1, int(examples.mask[rows].sum(axis=1).max()))
            limits = np.tile([examples.first, examples.last], (len(rows), 1))
            yield Batch(
                torch.from_numpy(examples.ids[rows, :length].astype(np.int64)),
                torch.from_numpy(np.column_stack([examples.classes[rows], limits]).astype(np.int64)),
                torch.from_numpy(examples.mask[rows, :length].astype(np.int64)),
            )

    def fullest(self, size: int) -> Batch:
        """Return texts of full length, told apart among all classes."""
        ids = torch.zeros(size, self.length, dtype=torch.int64)
        labels = torch.tensor([0, 0, self.base.labels]).repeat(size, 1)
        return Batch(ids, labels, torch.ones_like(ids))

    def order(self, examples: Examples) -> np.ndarray:
        """Return the texts by length."""
        return np.argsort(-examples.mask.sum(axis=1), kind="stable")

    def predictions(self, batch: Batch) -> int:
        """Return one per text."""
        return len(batch.ids)

    def predict(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the logits of the client's own classes, and the classes counted from the first of them."""
        classifier: Any = model
        read = batch.to(classifier.device)
        if self._pooling == "model":
            logits = classifier(input_ids=read.ids, attention_mask=read.mask).logits.float()
        else:
            encoder, head = getattr(classifier, classifier.base_model_prefix), classifier.classifier
            hidden = encoder(input_ids=read.ids, attention_mask=read.mask).last_hidden_state
            logits = head(mean_pooled(hidden, read.mask)).float()
        first, last = (int(n) for n in batch.labels[0, 1:])
        return logits[:, first:last], (batch.labels[:, 0] - first).to(logits.device)

    def replaceable(self, batch: Batch) -> Tensor:
        """Return the words."""
        return words(batch)


def words(batch: Batch) -> Tensor:
    """Return which positions of an encoder's batch are words: not the mark at the start, nor the one at the end."""
    assert batch.mask is not None  # noqa: S101 - an encoder's batches always have one
    free = batch.mask.bool().clone()
    free[:, 0] = False
    ends = batch.mask.sum(dim=1) - 1
    free[torch.arange(len(ends)), ends] = False
    return free


def mean_pooled(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean hidden state of each text, padding left out; shape (b, d)."""
    if mask is None:
        return hidden.mean(dim=1)
    weights = mask[..., None].to(hidden.dtype)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1)
