"""Memory, time and quality of fine-tuning a model of 135 million parameters on one thread, against full fine-tuning.

Each way runs in a process of its own. ``peak_ratio_*`` is the kernel's high-water mark over the imported libraries and
the text, pages of weights mapped from the disk included; ``private_ratio_*`` leaves those out, which other processes
share and the system may drop. Quality is the loss on text that was not trained on, after 50 steps of LoRA at equal
rates: by default of the builtin base, with ``--full`` of SmolLM2 itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fedpeft.base.load import prepare_base
from fedpeft.bench.edge_child import Way
from fedpeft.bench.result import Result
from fedpeft.errors import FedpeftError

_BASE = "smollm2-135m"
_THRIFT = (("checkpointing", True), ("chunk", 64))
_PAIRS = 2


def run(full: bool = False) -> Result:
    """Fine-tune in every way, two processes at a time."""
    for dtype in ("float32", "bfloat16"):
        prepare_base(_BASE, dtype)
    steps, judge = (3, _BASE) if full else (1, "keyboard")
    ways = [
        Way("full", _BASE, "full", steps=steps),
        Way("nf4", _BASE, dtype="bfloat16", precision="nf4", thrift=_THRIFT, steps=steps),
        Way("bf16", _BASE, dtype="bfloat16", thrift=_THRIFT, steps=steps),
        Way("lora quality", judge, steps=50, scored=64),
        Way("nf4 quality", judge, dtype="bfloat16", precision="nf4", thrift=_THRIFT, steps=50, scored=64),
    ]
    with ThreadPoolExecutor(_PAIRS) as pool:
        found = dict(zip((way.name for way in ways), pool.map(_measured, ways), strict=True))
    rival, nf4, bf16 = found["full"], found["nf4"], found["bf16"]
    best, quantized = found["lora quality"]["score"], found["nf4 quality"]["score"]
    return Result(
        {
            "peak_ratio_nf4": _ratio(nf4, rival, "peak_mb"),
            "peak_ratio_bf16": _ratio(bf16, rival, "peak_mb"),
            "private_ratio_nf4": _ratio(nf4, rival, "private_mb"),
            "private_ratio_bf16": _ratio(bf16, rival, "private_mb"),
            "step_time_ratio_nf4": nf4["step_s"] / rival["step_s"],
            "step_time_ratio_bf16": bf16["step_s"] / rival["step_s"],
            "quality_gap_nf4": quantized / best - 1,
            "quality_base": judge,
            "peak_mb_nf4": nf4["peak_mb"],
            "peak_mb_bf16": bf16["peak_mb"],
        },
        {"name": "full fine-tuning in float32, AdamW", "peak_mb": rival["peak_mb"], "step_s": rival["step_s"]},
    )


def _measured(way: Way) -> dict[str, Any]:
    command = [sys.executable, "-m", "fedpeft.bench.edge_child"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(  # noqa: S603  # our own module
        command, input=way.to_json(), capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        raise FedpeftError(f"bench edge-train, {way.name}", done.stderr.strip()[-200:], "a process that ends well")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _ratio(ours: dict[str, Any], theirs: dict[str, Any], key: str) -> float | None:
    return None if ours[key] is None or theirs[key] is None else ours[key] / theirs[key]
