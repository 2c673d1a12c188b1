"""A change of weights, whatever it was trained as, in the form of a LoRA: to merge, to export, to open with peft."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from re import escape
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor

from fedpeft.methods.peft_method import plain

Fold = tuple[dict[str, Tensor], Mapping[str, Any]]


def as_lora(factors: Mapping[str, tuple[Tensor, Tensor]]) -> Fold:
    """Return a LoRA of scaling 1 in peft's words.

    Parameters
    ----------
    factors : mapping of str to (Tensor, Tensor)
        By module: A of shape (r, in) and B of shape (out, r); ranks may differ.

    Returns
    -------
    tensors : dict of str to Tensor
    config : mapping
    """
    ranks = {module: len(a) for module, (a, _) in factors.items()}
    usual = Counter(ranks.values()).most_common(1)[0][0]
    # Keys are regular expressions for the end of a name.
    others = {f"^{escape(module)}": rank for module, rank in ranks.items() if rank != usual}
    config = LoraConfig(
        r=usual, lora_alpha=usual, target_modules=sorted(factors), rank_pattern=others, alpha_pattern=dict(others)
    )
    tensors = {}
    for module, pair in factors.items():
        for letter, tensor in zip("AB", pair, strict=True):
            tensors[f"base_model.model.{module}.lora_{letter}.weight"] = tensor.detach().contiguous()
    return tensors, plain(config)


def columns(change: Tensor) -> tuple[Tensor, Tensor]:
    """Return A and B of a sparse change of a weight: its columns that are not zero, and where they stand."""
    kept = change.abs().sum(0).nonzero().flatten()
    kept = kept if len(kept) else kept.new_zeros(1)
    return torch.eye(change.shape[1], device=change.device)[kept], change[:, kept]
