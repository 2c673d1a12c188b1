"""The frozen base as a value: a model, its tokenizer, and the fingerprint that adapters are bound to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Base:
    """A base model that is never trained.

    Parameters
    ----------
    name : str
        As the scenario names it.
    folder : Path
        A Hugging Face folder (``config.json``, ``model.safetensors``, tokenizer) in :attr:`dtype`; processes
        that load it map the same pages.
    fingerprint : str
        The sha256 of the weights as published, before any change of precision.
    model : PreTrainedModel
        In evaluation mode, without gradients.
    tokenizer : PreTrainedTokenizerBase
    parameters : int
        How many numbers the published base holds, tied ones once; neither a head nor adapters attached later count.
    precision : {"full", "nf4", "int8"}
        How its linear layers are held; they compute in :attr:`dtype` whichever it is.
    labels : int, optional
        Classes it tells apart, 0 for an encoder without a head; none when it is a language model.
    head : tuple of str
        The parameters of the classification head: drawn, not published, float32. A base does not train them; a method
        for classification does.
    """

    name: str
    folder: Path
    fingerprint: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    parameters: int
    precision: str = "full"
    labels: int | None = None
    head: tuple[str, ...] = ()

    @property
    def dtype(self) -> torch.dtype:
        """The precision the base computes in."""
        return self.model.dtype

    @property
    def float32_bytes(self) -> int:
        """Bytes that sending the whole base in fp32 would cost; what adapters are compared with."""
        return 4 * self.parameters
