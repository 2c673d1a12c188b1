"""Keystrokes saved: what three suggestions above the keyboard would have spared the typist.

While a piece of n characters is typed, after each of its first k characters (k = 0 … n - 2) the keyboard offers the
three likeliest pieces that begin with them. As soon as the wanted one is offered, one tap ends it: n - k - 1
keystrokes are saved. The share saved over all characters is the metric, as product teams report it, at the
level of pieces. Marks such as ``</s>`` have no characters and do not count.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

_OFFERED = 3


class Keystrokes:
    """Counts for one vocabulary.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Whose pieces are offered.
    vocabulary : int
        Width of the logits.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> None:
        special = set(tokenizer.all_special_ids)
        pieces = [
            "" if i in special else str(tokenizer.decode([i], clean_up_tokenization_spaces=False))
            for i in range(min(len(tokenizer), vocabulary))
        ]
        pieces += [""] * (vocabulary - len(pieces))
        self._length = torch.tensor([len(p) for p in pieces])
        longest = max(1, int(self._length.max()))
        self._group = torch.stack([_groups(pieces, k) for k in range(longest)])

    def count(self, logits: Tensor, targets: Tensor) -> tuple[float, float]:
        """Count over predictions.

        Parameters
        ----------
        logits : Tensor of float32, shape (n, vocabulary)
        targets : Tensor of int64, shape (n,)

        Returns
        -------
        saved, characters : float
            Keystrokes saved, and keystrokes without suggestions.
        """
        self._length, self._group = self._length.to(targets.device), self._group.to(targets.device)
        length = self._length[targets]
        better = ahead(logits, targets)
        saved = torch.zeros_like(length)
        for typed, group in enumerate(self._group):
            before = (better & (group == group[targets][:, None])).sum(dim=1)
            saved = torch.maximum(saved, torch.where(before < _OFFERED, length - typed - 1, 0))
        return float(saved.sum()), float(length.sum())


def _groups(pieces: list[str], typed: int) -> Tensor:
    """Group the pieces by their first ``typed`` characters; pieces that are shorter stand alone."""
    numbers: dict[str, int] = {}
    groups = [
        numbers.setdefault(piece[:typed], len(numbers)) if len(piece) > typed else -1 - i
        for i, piece in enumerate(pieces)
    ]
    return torch.tensor(groups)


def ahead(logits: Tensor, targets: Tensor) -> Tensor:
    """Mark what comes before the target: what is likelier, and of equals (bfloat16 has many) those of lower number."""
    target = logits.gather(1, targets[:, None])
    earlier = torch.arange(logits.shape[1], device=logits.device) < targets[:, None]
    return (logits > target) | ((logits == target) & earlier)
