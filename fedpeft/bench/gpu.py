"""Tokens per second and peak memory of training on a CUDA device, against full fine-tuning in float32.

Models have the shapes of SmolLM2-135M and of a Llama of one billion parameters, and random weights: neither speed nor
memory hangs on what weights are. Batches of 8 texts of 512 tokens, every token a target. The rival is PyTorch alone:
the 135M model whole, AdamW, matrix products in full float32. Peaks are of torch's allocator, weights included.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from fedpeft.base import Base, load_base
from fedpeft.base.placement import device_of, seeded
from fedpeft.base.quantize import quantize
from fedpeft.bench.result import Result
from fedpeft.data.windows import Windows
from fedpeft.errors import BaseError, FedpeftError
from fedpeft.methods import Attached
from fedpeft.methods.attached import SHARED
from fedpeft.methods.lora import Lora
from fedpeft.tasks.next_word import NextWord
from fedpeft.training import Training, train


@dataclass(frozen=True)
class Shape:
    """A Llama's size, and what it is fed.

    Parameters
    ----------
    hidden, feed_forward, layers, heads, key_value_heads, vocabulary : int
    batch, length : int
        Texts in a step, and tokens of each.
    """

    hidden: int
    feed_forward: int
    layers: int
    heads: int
    key_value_heads: int
    vocabulary: int = 49152
    batch: int = 8
    length: int = 512


SHAPES = {"135m": Shape(576, 1536, 30, 9, 3), "1b": Shape(2048, 8192, 16, 32, 8)}
_TINY = {"tiny": Shape(64, 128, 2, 4, 2, 256, 2, 16)}
_THRIFT = {"checkpointing": True, "chunk": 1024}
_WARMING = 2


def run(full: bool = False, device: str = "cuda") -> Result:
    """Train in every way, one after the other.

    Raises
    ------
    FedpeftError
        When there is no such device.
    """
    try:
        place = device_of(device)
    except BaseError as error:
        raise FedpeftError(
            "bench gpu", f"device {device}", "a CUDA device that torch sees", "--device cpu tries a tiny model"
        ) from error
    shapes, steps = (SHAPES, 20 if full else 5) if place.type == "cuda" else (_TINY, 1)
    ways: dict[str, tuple[str, dict[str, Any]]] = {"bf16": ("full", {}), "nf4": ("nf4", {})}
    if full:
        ways |= {f"{name}_thrift": (precision, _THRIFT) for name, (precision, _) in ways.items()}
    tokenizer = load_base("keyboard").tokenizer
    (first, smallest), *_ = shapes.items()
    rival = _measured(place, partial(_full, smallest, steps, place))
    figures: dict[str, Any] = {"device": _name(place)}
    for size, shape in shapes.items():
        for name, (precision, thrift) in ways.items():
            found = _measured(place, partial(_lora, shape, precision, thrift, steps, place, tokenizer))
            figures |= {f"{key}_{size}_{name}": value for key, value in found.items()}
            if size == first:
                figures |= {f"{key}_ratio_{size}_{name}": found[key] / rival[key] for key in found}
    return Result(figures, {"name": f"{first} whole, float32, AdamW", **rival})


def _measured(place: torch.device, work: Callable[[], float]) -> dict[str, float]:
    """Return what ``work`` reaches in tokens per second, and its peak in GB where torch counts it."""
    gc.collect()
    if place.type != "cuda":
        return {"tokens_per_s": work()}
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(place)
    speed = work()
    return {"tokens_per_s": speed, "peak_gb": torch.cuda.max_memory_allocated(place) / 1e9}


def _full(shape: Shape, steps: int, place: torch.device) -> float:
    model = _model(shape, torch.float32).train().requires_grad_(True).to(place)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    ids = torch.from_numpy(_text(shape, 1).ids.astype(np.int64)).to(place)

    def take(count: int) -> None:
        for _ in range(count):
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
            F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return _speed(take, shape, steps, place)


def _lora(
    shape: Shape,
    precision: str,
    thrift: dict[str, Any],
    steps: int,
    place: torch.device,
    tokenizer: PreTrainedTokenizerBase,
) -> float:
    model = _model(shape, torch.bfloat16)
    if precision != "full":
        quantize(model, precision)
    parameters = sum(p.numel() for p in model.parameters())
    base = Base("random", load_base("keyboard").folder, "0" * 64, model, tokenizer, parameters, precision)
    attached = Attached(base, Lora(rank=8), None, 0, place)
    task = NextWord(base, None, shape.length)  # type: ignore[arg-type]  # nobody asks for its clients
    text = _text(shape, steps)

    def take(count: int) -> None:
        train(attached, SHARED, task, text, Training(steps=count, batch=shape.batch, **thrift), seed=0)

    return _speed(take, shape, steps, place)


def _model(shape: Shape, dtype: torch.dtype) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        max_position_embeddings=shape.length,
        tie_word_embeddings=True,
        dtype=dtype,
    )
    with seeded(0):
        return LlamaForCausalLM._from_config(config).eval().requires_grad_(False)  # type: ignore[no-any-return]


def _text(shape: Shape, steps: int) -> Windows:
    ids = np.random.default_rng(0).integers(3, shape.vocabulary, (steps * shape.batch, shape.length), np.int32)
    return Windows(ids, ids.copy())


def _speed(take: Callable[[int], None], shape: Shape, steps: int, place: torch.device) -> float:
    """Return tokens per second over ``steps`` steps, after some that warm up."""
    take(_WARMING)
    start = _now(place)
    take(steps)
    return shape.batch * shape.length * steps / (_now(place) - start)


def _now(place: torch.device) -> float:
    if place.type == "cuda":
        torch.cuda.synchronize(place)
    return time.perf_counter()


def _name(place: torch.device) -> str:
    return torch.cuda.get_device_name(place) if place.type == "cuda" else str(place)
