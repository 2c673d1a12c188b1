"""Metrics as totals that can be added over batches and over clients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch.nn import functional as F

from fedpeft.methods import Attached
from fedpeft.tasks import Encoded, Task
from fedpeft.tasks.keystrokes import ahead

_BATCH = 32


@dataclass(frozen=True, slots=True)
class Tally:
    """Totals over labelled pieces; every field may travel in a lane.

    Parameters
    ----------
    loss : float
        Sum of negative log likelihoods, in nats.
    tokens, top1, top3 : float
        Pieces scored, and how many were the first or among the first three predictions.
    saved, characters : float
        Keystrokes that three suggestions save, and keystrokes without suggestions.
    """

    loss: float = 0.0
    tokens: float = 0.0
    top1: float = 0.0
    top3: float = 0.0
    saved: float = 0.0
    characters: float = 0.0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def lanes(self) -> dict[str, float]:
        """Return the totals by name."""
        return asdict(self)

    def metrics(self) -> dict[str, float]:
        """Return means: loss (nats per piece), perplexity, accuracies and the share of keystrokes saved."""
        tokens = max(self.tokens, 1.0)
        loss = self.loss / tokens
        return {
            "loss": loss,
            "perplexity": math.exp(min(loss, 50.0)),
            "top1": self.top1 / tokens,
            "top3": self.top3 / tokens,
            "keystrokes_saved": self.saved / max(self.characters, 1.0),
            "tokens": self.tokens,
        }


LANES: Sequence[str] = tuple(f.name for f in fields(Tally))


@torch.no_grad()
def evaluate(attached: Attached, task: Task[Any], examples: Encoded) -> Tally:
    """Score the active slots on examples.

    Parameters
    ----------
    attached : Attached
    task : Task
    examples : Encoded
        None gives an empty tally.

    Returns
    -------
    Tally
    """
    tally = Tally()
    for batch in task.batches(examples, task.order(examples), _BATCH):
        logits, targets = task.predict(attached.model, batch)
        rank = ahead(logits, targets).sum(dim=1)
        saved, characters = task.count(logits, targets)
        tally += Tally(
            loss=float(F.cross_entropy(logits, targets, reduction="sum")),
            tokens=float(len(targets)),
            top1=float((rank < 1).sum()),
            top3=float((rank < 3).sum()),
            saved=saved,
            characters=characters,
        )
    return tally


@torch.no_grad()
def mean_loss(attached: Attached, task: Task[Any], examples: Encoded) -> float:
    """Return the loss of the active slots in nats per prediction, and nothing that takes longer."""
    total, count = 0.0, 0
    for batch in task.batches(examples, task.order(examples), _BATCH):
        logits, targets = task.predict(attached.model, batch)
        total += float(F.cross_entropy(logits, targets, reduction="sum"))
        count += len(targets)
    return total / max(count, 1)
