"""How the builtin base ``keyboard`` is made: a small Llama trained on the public split of chitchat alone.

No client's word enters: conversations that a client took part in are held out before the tokenizer sees any.
A fiftieth of the public conversations is kept aside to choose settings by. The same seed on the same machine
gives the same file, bit for bit.

Each epoch reads every conversation once, from the device of one of its speakers, packed into rows of
``<s>`` and ``length - 1`` pieces, all of them predicted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from fedpeft.base.tokenizer import train_tokenizer
from fedpeft.data.keyboard import public_conversations
from fedpeft.data.public import rows_of

Rows = NDArray[np.int64]
_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@dataclass(frozen=True, slots=True)
class PretrainConfig:
    """Everything that decides the resulting weights, besides the data and the machine."""

    seed: int = 0
    vocabulary: int = 2048
    hidden: int = 256
    layers: int = 4
    heads: int = 4
    feed_forward: int = 640
    context: int = 512
    epochs: int = 6
    batch: int = 32
    length: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    dropout: float = 0.1
    warmup: float = 0.05


@dataclass(frozen=True, slots=True)
class Progress:
    """What a listener hears after each epoch."""

    epoch: int
    epochs: int
    train_loss: float
    public_perplexity: float


@contextmanager
def deterministic() -> Iterator[None]:
    """Have torch compute the same bits every time, or refuse; afterwards all is as it was."""
    mode, cublas = torch.get_deterministic_debug_mode(), os.environ.get(_CUBLAS)
    os.environ.setdefault(_CUBLAS, ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        if cublas is None:
            os.environ.pop(_CUBLAS, None)


@contextmanager
def silent() -> Iterator[None]:
    """Keep transformers from drawing progress bars; afterwards it may again if it might before."""
    before = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if before:
            transformers_logging.enable_progress_bar()


@deterministic()
def pretrain(
    config: PretrainConfig,
    out: Path,
    device: str = "cpu",
    listen: Callable[[Progress], None] = lambda _: None,
    limit: int | None = None,
) -> None:
    """Train tokenizer and model and write them as a Hugging Face folder, weights in bf16.

    Parameters
    ----------
    config : PretrainConfig
    out : Path
        Folder to write; created when missing.
    device : str
        A torch device.
    listen : callable
        Called after every epoch.
    limit : int, optional
        Use only the first so many public conversations (for a quick trial).
    """
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    public = public_conversations()[:limit]
    aside, public = public[::50], [c for i, c in enumerate(public) if i % 50]
    tokenizer = train_tokenizer((text for turns in public for _, text, _ in turns), config.vocabulary)
    held_rows = rows_of(aside, tokenizer, config.length, np.random.default_rng(0))
    model = _model(config, tokenizer)
    nn.Module.to(model, device)
    dropouts = _add_dropout(model, config.dropout)
    per_epoch = len(rows_of(public, tokenizer, config.length, np.random.default_rng(0))) // config.batch
    total = max(1, per_epoch * config.epochs)
    decay = [p for p in model.parameters() if p.ndim > 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": decay, "weight_decay": config.weight_decay},
            {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        betas=(0.9, 0.95),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _cosine(total, config.warmup))
    for epoch in range(config.epochs):
        model.train()
        losses = []
        for rows in _batches(rows_of(public, tokenizer, config.length, rng), config.batch, rng):
            loss = _loss(model, rows, device)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(float(loss.detach()))
            if len(losses) == per_epoch:
                break
        perplexity = _perplexity(model, held_rows, device)
        mean = float(np.mean(losses)) if losses else float("nan")
        listen(Progress(epoch + 1, config.epochs, mean, perplexity))
    for handle in dropouts:
        handle.remove()
    out.mkdir(parents=True, exist_ok=True)
    with silent():
        model.cpu().bfloat16().save_pretrained(out)
    tokenizer.save_pretrained(out)


def describe(config: PretrainConfig) -> dict[str, object]:
    """Return the configuration as plain values, for a model card."""
    return asdict(config)


def _model(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocabulary,
            hidden_size=config.hidden,
            intermediate_size=config.feed_forward,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=config.context,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _add_dropout(model: LlamaForCausalLM, rate: float) -> list[torch.utils.hooks.RemovableHandle]:
    """Drop residual branches' outputs while training; Llama has no such option of its own."""

    def drop(module: nn.Module, _: object, output: Tensor) -> Tensor:
        return F.dropout(output, rate, module.training)

    modules = [model.model.embed_tokens]
    for layer in model.model.layers:
        modules += [layer.self_attn.o_proj, layer.mlp]
    return [module.register_forward_hook(drop) for module in modules]


def _batches(rows: Rows, size: int, rng: np.random.Generator) -> Iterator[Rows]:
    order = rng.permutation(len(rows))
    for i in range(0, len(rows) - size + 1, size):
        yield rows[order[i : i + size]]


def _loss(model: LlamaForCausalLM, rows: Rows, device: str) -> Tensor:
    ids = torch.from_numpy(rows).to(device)
    with torch.autocast(device.split(":", maxsplit=1)[0], torch.bfloat16):
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    return F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())


@torch.no_grad()
def _perplexity(model: LlamaForCausalLM, rows: Rows, device: str) -> float:
    model.eval()
    losses = [_loss(model, rows[i : i + 64], device) * len(rows[i : i + 64]) for i in range(0, len(rows), 64)]
    return float(torch.exp(torch.stack(losses).sum() / len(rows))) if losses else float("nan")


def _cosine(total: int, warmup: float) -> Callable[[int], float]:
    """Rise linearly, then fall along a half cosine to a twentieth."""
    rise = max(1, round(total * warmup))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        done = (step - rise) / max(1, total - rise)
        return float(0.05 + 0.475 * (1.0 + np.cos(np.pi * min(1.0, done))))

    return factor
