"""What a benchmark returns, and which there are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

BENCHES = {
    "roundtrip": "Seconds per client-round in process, against Flower's Ray simulation of the same apps.",
    "ring": "Error of summing in ring integers, against summing in float64.",
    "methods": "What every PEFT method trains, weighs, takes and reaches; and switching adapters, against peft.",
    "transport": "Client time, bytes and requests of a round on a real server, against Flower's own SuperNodes.",
    "secagg": "Masks, sums, bytes and altered messages of secure aggregation, against Flower's SecAgg+ functions.",
    "serve": "Sixty-four people with adapters of their own on one service, against one text at a time.",
    "device": "A token, a switch and a thousand adapters on a device, against torch with peft and onnxruntime-genai.",
    "edge-train": "Memory and time of fine-tuning 135 million parameters in bfloat16 and NF4, against float32 in full.",
    "gpu": "Tokens per second and peak memory of LoRA on a CUDA device, against full fine-tuning in float32.",
    "web": "The browser client in headless Chromium: time to suggest, first load, bytes, with three kinds of weights.",
    "base": "Perplexity of the builtin base on the clients' test text, against a unigram model.",
}
"""Name, with underscores that of the module in ``fedpeft.bench``, and what it measures."""


@dataclass(frozen=True)
class Result:
    """One benchmark's outcome.

    Parameters
    ----------
    figures : dict
        Ours; ratios above 1 are in our favour.
    rival : dict
        The other's, measured in the same run, with its ``name``.
    """

    figures: dict[str, Any]
    rival: dict[str, Any] = field(default_factory=dict)
