"""``fedpeft doctor``: what works on this machine, tried, not guessed."""

from __future__ import annotations

import json as json_module
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

_PACKAGES = ("fedpeft", "torch", "transformers", "peft", "flwr", "onnxruntime", "cryptography")


@dataclass(frozen=True)
class Finding:
    """One line of the table: a part, whether it works, and what was seen."""

    part: str
    works: bool
    seen: str


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print the findings as one JSON object.")] = False,
) -> None:
    """Show versions and devices, what works here and what does not.

    Example: `fedpeft doctor`
    """
    findings = examine()
    if json:
        typer.echo(json_module.dumps({"findings": [asdict(f) for f in findings]}))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="fedpeft doctor", title_justify="left")
    table.add_column("part")
    table.add_column("works")
    table.add_column("seen", overflow="fold")
    for finding in findings:
        mark = "[green]yes[/]" if finding.works else "[yellow]no[/]"
        table.add_row(finding.part, mark, escape(finding.seen))
    Console().print(table)


def examine() -> list[Finding]:
    """Try every part and say what happened."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    findings = [Finding("python", sys.version_info >= (3, 11), sys.version.split()[0] + f", {cores} cores")]
    findings += [_try(package, partial(version, package)) for package in _PACKAGES]
    return findings + [_try(part, check) for part, check in _CHECKS.items()]


def _try(part: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(part, True, check())
    except PackageNotFoundError:
        return Finding(part, False, "not installed")
    except Exception as error:  # whatever is broken here is what the table is for
        lines = str(error).strip().splitlines() or [""]
        return Finding(part, False, f"{type(error).__name__}: {lines[0][:160]}")


def _cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("no CUDA device; training runs on the CPU")
    return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def _bfloat16() -> str:
    import torch

    ours, exact = torch.ones(8, 8, dtype=torch.bfloat16) @ torch.ones(8, 8, dtype=torch.bfloat16), 8.0
    if float(ours[0, 0]) != exact:
        raise RuntimeError("wrong product")
    flags = _cpu_flags()
    units = [unit for unit in ("amx_bf16", "avx512_bf16") if unit in flags]
    return "in hardware: " + ", ".join(units) if units else "emulated; base.dtype = float32 may be faster"


def _nf4() -> str:
    import torch
    from bitsandbytes.nn.modules import Linear4bit

    layer = Linear4bit(64, 64, bias=False, compute_dtype=torch.float32, quant_type="nf4").to("cpu")
    x = torch.randn(2, 64, requires_grad=True)
    layer(x).sum().backward()
    if x.grad is None or not bool(torch.isfinite(x.grad).all()):
        raise RuntimeError("no gradient through a 4-bit layer")
    return f"bitsandbytes {version('bitsandbytes')}: NF4 forward and backward on the CPU"


def _providers() -> str:
    import onnxruntime

    return ", ".join(onnxruntime.get_available_providers())


def _adapters() -> str:
    import numpy as np
    import onnxruntime

    value = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((2, 2), np.float32))
    adapter = onnxruntime.AdapterFormat()
    adapter.set_parameters({"a": value})
    return "onnxruntime reads and writes .onnx_adapter"


def _base() -> str:
    from fedpeft.base import load_base

    base = load_base("keyboard")
    return f"keyboard, {base.parameters / 1e6:.1f} M parameters, fingerprint {base.fingerprint[:12]}"


def _data() -> str:
    from fedpeft.data import load_federation

    federation = load_federation("keyboard")
    return f"keyboard, {len(federation.client_ids())} clients"


def _flower() -> str:
    import fedpeft.federation  # noqa: F401  (turns telemetry off before Flower is imported)
    from fedpeft.federation import flower_internals

    return f"flwr {version('flwr')}: private names found in {flower_internals.__name__}"


def _ray() -> str:
    return f"ray {version('ray')}: fedpeft simulate --engine ray, flwr run ."


def _cpu_flags() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            return next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return ""


_CHECKS: dict[str, Callable[[], str]] = {
    "CUDA": _cuda,
    "bfloat16": _bfloat16,
    "4-bit training": _nf4,
    "onnxruntime providers": _providers,
    "adapter files": _adapters,
    "builtin base": _base,
    "builtin data": _data,
    "Flower": _flower,
    "Ray": _ray,
}
