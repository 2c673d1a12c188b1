"""Tiny random models of both families, small enough to train in a test."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from fedpeft.base.base import Base

HIDDEN, WIDE, LAYERS, HEADS, VOCABULARY, LABELS = 64, 128, 2, 4, 128, 3
KINDS = ("llama", "bert")


def llama(seed: int = 0, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    """Return a causal language model with narrower keys and values than queries."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=WIDE,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS // 2,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        attn_implementation="eager",
    )
    return _made(LlamaForCausalLM, config, seed, dtype)


def bert(seed: int = 0, dtype: torch.dtype = torch.float32) -> BertForSequenceClassification:
    """Return an encoder with a classification head, which is float32 over any encoder."""
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=WIDE,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=128,
        num_labels=LABELS,
        attn_implementation="eager",
    )
    model = _made(BertForSequenceClassification, config, seed, dtype)
    model.classifier.float()
    model.classifier.register_forward_pre_hook(lambda _, inputs: tuple(x.float() for x in inputs))
    return model


def _made(kind: type, config: object, seed: int, dtype: torch.dtype) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(config).to(dtype).eval().requires_grad_(False)


def base_of(model: PreTrainedModel) -> Base:
    """Return a model as a base, with a made-up name and no files."""
    head = tuple(n for n, _ in model.named_parameters() if n.startswith("classifier."))
    count = sum(p.numel() for n, p in model.named_parameters() if n not in head)
    tokenizer = PreTrainedTokenizerBase()
    return Base("tiny", Path("tiny"), "0" * 64, model, tokenizer, count, labels=LABELS if head else None, head=head)


def batch(kind: str, seed: int = 1, rows: int = 4, length: int = 12) -> dict[str, Tensor]:
    """Return inputs with labels for a model of a kind, such that ``model(**batch)`` has a loss."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (rows, length), generator=generator)
    labels = ids.clone() if kind == "llama" else torch.randint(0, LABELS, (rows,), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
