"""Milliseconds of processor time for the next token, of everything that is compared, in turn.

Machines are busy with other things, and get hot: each way runs a few tokens, then the next way does, and so round and
round. Of every round the fastest half counts, and of those the median.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM

from fedpeft.bench.device_llama import RANKS, Llama
from fedpeft.device.bundle import Bundle
from fedpeft.device.loaded import LoadedAdapter, load_adapter, run_options
from fedpeft.device.manifest import Precision
from fedpeft.device.memory import Bound
from fedpeft.device.rows import RowDecoder
from fedpeft.device.runtime import Runtime

PROMPT = 32
"""Tokens read before the first that is timed."""

Step = Callable[[int], None]


def decode_ms(ways: Mapping[str, Step], rounds: int, tokens: int = 6) -> dict[str, float]:
    """Time steps.

    Parameters
    ----------
    ways : mapping of str to callable
        Each reads the token it is given.
    rounds : int
    tokens : int
        Steps of each way per round.

    Returns
    -------
    dict of str to float
        Milliseconds of processor time per step.
    """
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, step in ways.items():
            for i in range(tokens):
                began = time.process_time()
                step(5 + i)
                spent[name].append(1e3 * (time.process_time() - began))
    return {name: median(sorted(times)[: max(1, len(times) // 2)]) for name, times in spent.items()}


def our_step(runtime: Runtime, adapter: LoadedAdapter | None) -> Step:
    """Return how one of our texts reads a token."""
    memory = Bound(runtime._decoder, adapter)
    memory.read(np.arange(5, 5 + PROMPT))

    def step(token: int) -> None:
        memory.read(np.array([token], np.int64)).argmax()

    return step


def peft_step(llama: Llama, layers: Sequence[str]) -> Step:
    """Return how torch in eager mode reads a token with peft's LoRA of rank 8, unmerged."""
    torch.set_num_threads(1)
    model = LlamaForCausalLM.from_pretrained(llama.folder / "model", dtype=torch.float32)
    config = LoraConfig(r=8, lora_alpha=16, target_modules=list(layers), init_lora_weights=False)
    adapted = get_peft_model(model, config).eval()
    with torch.inference_mode():
        past = adapted(input_ids=torch.arange(5, 5 + PROMPT)[None], use_cache=True).past_key_values

    @torch.inference_mode()
    def step(token: int) -> None:
        found = adapted(input_ids=torch.tensor([[token]]), past_key_values=past, use_cache=True)
        found.logits[0, -1].argmax()

    return step


def batch_step(llama: Llama, runtime: Runtime, precision: Precision) -> Step:
    """Return how eight texts with eight adapters of several ranks read a token each in one run."""
    decoder = RowDecoder(Bundle.open(llama.folder / f"rows-{precision}", "base"), len(RANKS))
    for i in range(len(RANKS)):
        row = decoder.open(runtime.load(llama.folder / f"row{i}"))
        decoder.read(row, list(range(5, 5 + PROMPT)))
        decoder.seat(row)

    def step(token: int) -> None:
        decoder.step([token] * len(RANKS)).argmax(-1)

    return step


def single_steps(llama: Llama, runtime: Runtime) -> Step:
    """Return how the same eight read a token each, one after the other."""
    steps = [our_step(runtime, runtime.load(llama.folder / f"row{i}")) for i in range(len(RANKS))]

    def step(token: int) -> None:
        for each in steps:
            each(token)

    return step


def activate_us(adapter: LoadedAdapter, times: int = 2000) -> float:
    """Return the median microseconds of switching to an adapter for one run."""
    spent = []
    for _ in range(times):
        began = time.perf_counter_ns()
        run_options(adapter)
        spent.append(time.perf_counter_ns() - began)
    return median(spent) / 1e3


def load_ms(llama: Llama, runtime: Runtime, times: int = 40) -> float:
    """Return the median milliseconds of processor time of verifying and loading an adapter bundle."""
    manifest, spent = runtime.manifest, []
    for _ in range(times):
        began = time.process_time()
        load_adapter(llama.folder / "query_value", manifest.base_fingerprint, manifest.tensors, {manifest.signer})
        spent.append(1e3 * (time.process_time() - began))
    return median(spent)
