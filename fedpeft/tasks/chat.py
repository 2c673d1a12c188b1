"""Reply as a person would, or as a model ought to: chats and instructions, only the replies being learnt.

Examples are of many lengths, so several share a row unless that is switched off (:mod:`fedpeft.data.packing`).
The loss is next-word prediction's, on the pieces of replies and their ends.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from fedpeft.base import Base
from fedpeft.data import Client
from fedpeft.data.federation import Federation
from fedpeft.data.marks import Marks
from fedpeft.data.messages import Excerpt
from fedpeft.data.packing import packed, padded
from fedpeft.data.replies import replies
from fedpeft.data.windows import Windows
from fedpeft.tasks.apart import require_apart
from fedpeft.tasks.next_word import NextWord
from fedpeft.tasks.task import Batch, Splits


class Chat(NextWord):
    """Replies in conversations, or answers to instructions.

    Parameters
    ----------
    base : Base
        A causal language model, with marks or a chat template if it is to know who speaks.
    federation : Federation
    window : int
        Tokens per row.
    most : int, optional
        Keep only the latest so many training examples of a client.
    packing : bool
        Whether a row holds several examples.

    Raises
    ------
    ScenarioError
        When examples in one row would not stay apart under this base.
    """

    kind: ClassVar[str] = "chat"

    def __init__(
        self, base: Base, federation: Federation, window: int, most: int | None = None, packing: bool = True
    ) -> None:
        super().__init__(base, federation, window, most)
        if packing:
            require_apart(base.model, window)
        self._lay, self._pad = packed if packing else padded, Marks.of(base.tokenizer).pad

    def splits(self, client: str) -> Splits[Windows]:
        """Encode one client's replies."""
        split = Client.of(self.federation, client).split
        messages = sum(len(e.mine()) for e in split.train + split.validation + split.test)
        train = self._rows(split.train, self._max)
        return Splits(train, self._rows(split.validation), self._rows(split.test), messages)

    def fullest(self, size: int) -> Batch:
        """Return rows in which every piece is a target."""
        batch = super().fullest(size)
        places = torch.arange(self.length).expand(size, -1) if self._lay is packed else None
        return replace(batch, positions=places)

    def count(self, logits: Tensor, targets: Tensor) -> tuple[float, float]:
        """Return zeros: nobody types an answer."""
        return 0.0, 0.0

    def _rows(self, excerpts: tuple[Excerpt, ...], most: int | None = None) -> Windows:
        found = replies(excerpts, self.base.tokenizer, self.length)
        return self._lay(found[-most:] if most else found, self.length, self._pad)
