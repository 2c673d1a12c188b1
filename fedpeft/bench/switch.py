"""What it costs to change whose adapter a live model runs: ours against peft's two ways, on one model, in turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.hotswap import hotswap_adapter
from safetensors.torch import load_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from fedpeft.adapters import Adapter
from fedpeft.adapters.switch import Switcher

PEOPLE, RANK, LAYERS = 8, 8, 4


def measure_switch(switches: int = 200) -> dict[str, float]:
    """Time a switch between adapters of rank 8 on all linear layers of a Llama of 4 layers, 64 wide.

    Parameters
    ----------
    switches : int
        Of ours; peft's ways are timed a fifth as often.

    Returns
    -------
    dict of str to float
        Medians in microseconds: ``switch_us`` of :class:`~fedpeft.adapters.switch.Switcher`,
        ``peft_set_adapter_us`` with all adapters loaded, ``peft_hotswap_us`` from a file as peft has it, and
        ``difference``: the largest difference of logits between ours and peft's after a switch, which is 0.
    """
    with torch.random.fork_rng(devices=[]), TemporaryDirectory(prefix="fedpeft-switch-") as folder:
        torch.manual_seed(0)
        model = _model()
        names = [f"person{i}" for i in range(PEOPLE)]
        for name in names:
            model.add_adapter(name, _config())
        _randomize(model)
        model.save_pretrained(folder, selected_adapters=names)
        files = [Path(folder) / name for name in names]
        switcher = Switcher(_slot(model, "default"), len(names))
        for name, file in zip(names, files, strict=True):
            switcher.add(name, Adapter.load(file, "0" * 64))
            switcher.switch(name)
        difference = max(_difference(model, switcher, name) for name in names)
        set_adapter = _timed(lambda i: model.set_adapter(names[i % PEOPLE]), switches // 5)
        model.set_adapter("default")
        ours = _timed(lambda i: switcher.switch(names[i % PEOPLE]), switches)
        switcher.release()
        hotswap = _timed(lambda i: hotswap_adapter(model, str(files[i % PEOPLE]), "default"), switches // 5)
        last = load_file(files[(switches // 5 - 1) % PEOPLE] / "adapter_model.safetensors")
        if not all(torch.equal(p, last[name]) for name, p in _slot(model, "default").items()):
            raise RuntimeError("peft's hotswap left other numbers than the file's")
    return {
        "switch_us": ours,
        "peft_set_adapter_us": set_adapter,
        "peft_hotswap_us": hotswap,
        "difference": difference,
    }


def _model() -> PeftModel:
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
    return get_peft_model(LlamaForCausalLM(config), _config()).eval()


def _config() -> LoraConfig:
    return LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")


@torch.no_grad()
def _randomize(model: PeftModel) -> None:
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.normal_(0.0, 0.05)


def _slot(model: PeftModel, name: str) -> dict[str, nn.Parameter]:
    """Return one adapter's parameters by the names that its file has."""
    found = {n: p for n, p in model.named_parameters() if f".{name}." in n}
    return {".".join(n.rsplit(f".{name}.", 1)): p for n, p in found.items()}


@torch.no_grad()
def _difference(model: PeftModel, switcher: Switcher, name: str) -> float:
    ids = torch.arange(1, 33)[None]
    switcher.switch(name)
    model.set_adapter("default")
    ours = model(input_ids=ids).logits
    model.set_adapter(name)
    theirs = model(input_ids=ids).logits
    model.set_adapter("default")
    return float((ours - theirs).abs().max())


def _timed(action: Callable[[int], object], count: int) -> float:
    seconds = []
    for i in range(count):
        start = time.perf_counter()
        action(i)
        seconds.append(time.perf_counter() - start)
    return float(np.round(1e6 * median(seconds), 2))
