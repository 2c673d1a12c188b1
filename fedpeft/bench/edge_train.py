"""Memory, time and quality of fine-tuning a model of 135 million parameters on one thread, against full fine-tuning.

Each way runs in a process of its own. ``peak_ratio_*`` is the kernel's high-water mark over the imported libraries and
the text, pages of weights mapped from the disk included; ``private_ratio_*`` leaves those out, which other processes
share and the system may drop. Quality is the loss on text that was not trained on, after 50 steps of LoRA at equal
rates: by default of the builtin base, with ``--full`` of SmolLM2 itself. ``plan_error`` is the largest
|predicted / measured - 1| of the peaks, both over the imported libraries, where the memory plan predicts before
anything is done.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from fedpeft.base.load import prepare_base
from fedpeft.bench.edge_child import Way, measure, predicted_mb
from fedpeft.bench.result import Result
from fedpeft.errors import FedpeftError

_BASE = "smollm2-135m"
_THRIFT = (("checkpointing", True), ("chunk", 64))
_8BIT = (("optimizer", "adamw8bit"),)
_AT_ONCE = 3


def _ways(full: bool) -> list[Way]:
    steps = 3 if full else 1
    quick = [
        Way("full", _BASE, "full", steps=steps),
        Way("nf4", _BASE, dtype="bfloat16", precision="nf4", thrift=_THRIFT, steps=steps),
        Way("bf16", _BASE, dtype="bfloat16", thrift=_THRIFT, steps=steps),
    ]
    if not full:
        return quick
    return [
        *quick,
        Way("fp32 LoRA", _BASE),
        Way("bf16 LoRA", _BASE, dtype="bfloat16"),
        Way("NF4 LoRA", _BASE, dtype="bfloat16", precision="nf4"),
        Way("int8 LoRA", _BASE, dtype="bfloat16", precision="int8"),
        Way("bf16, 8-bit AdamW", _BASE, dtype="bfloat16", thrift=(*_THRIFT, *_8BIT)),
        Way("keyboard fp32 LoRA", "keyboard"),
        Way("keyboard NF4", "keyboard", dtype="bfloat16", precision="nf4", thrift=_THRIFT),
    ]


def run(full: bool = False) -> Result:
    """Fine-tune in every way, three processes at a time; here meanwhile predict, and train for quality."""
    for dtype in ("float32", "bfloat16"):
        prepare_base(_BASE, dtype)
    ways, judge = _ways(full), _BASE if full else "keyboard"
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        measuring = {way.name: pool.submit(_measured, way) for way in ways}
        predicted = {way.name: predicted_mb(way) for way in ways}
        judged = Way("lora quality", judge, steps=50, length=64, scored=64)
        best = measure(judged)["score"]
        quantized = measure(replace(judged, name="nf4 quality", dtype="bfloat16", precision="nf4"))["score"]
        found = {name: future.result() for name, future in measuring.items()}
    rival, nf4, bf16 = found["full"], found["nf4"], found["bf16"]
    errors = {name: predicted[name] / found[name]["peak_mb"] - 1 for name in found if found[name]["peak_mb"]}
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
            "plan_error": max((abs(error) for error in errors.values()), default=None),
            **{f"predicted_mb {name}": predicted[name] for name in found},
            **{f"peak_mb {name}": found[name]["peak_mb"] for name in found},
            **{f"step_s {name}": found[name]["step_s"] for name in found},
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
