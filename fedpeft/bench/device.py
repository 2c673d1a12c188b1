"""The device runtime: what a token, a switch and a thousand adapters cost, and what quantization leaves of a person.

One thread, processor time, everything in the same run. The shape for timing is a Llama of 100M parameters, the text
that of the builtin base.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from fedpeft.bench.device_gain import gains_kept, parity, train_person
from fedpeft.bench.device_llama import EVERY_LINEAR, PRECISIONS, Llama, make_llama
from fedpeft.bench.device_speed import (
    activate_us,
    batch_step,
    decode_ms,
    load_ms,
    our_step,
    peft_step,
    single_steps,
)
from fedpeft.bench.result import Result
from fedpeft.export.genai import CONFIG, export_genai

ADAPTERS = 1000


def run(full: bool) -> Result:
    """Measure.

    Parameters
    ----------
    full : bool
        More rounds of everything, and the thousand adapters on the large base instead of the small one.

    Returns
    -------
    Result
        ``decode_speedup_vs_torch_peft``: tokens per second in int4 over those of torch in eager mode with peft, both
        with a LoRA of rank 8 on every linear layer, which is fedpeft's default; ``decode_ratio_to_genai`` likewise.
        ``rank8_cost``: the share of tokens per second that a LoRA on queries and values takes, which is peft's default;
        ``rank8_cost_all_linear``: one on every linear layer, whose 5 MB in float32 are read for every token beside the
        base's 63 MB. ``rows8_speedup``: eight people's tokens in one run against one after the other, in float32,
        which is what a run is exported in by default; ``rows8_speedup_int4`` in int4, where a row alone is quick.
    """
    torch.set_num_threads(1)
    with TemporaryDirectory(prefix="fedpeft-bench-") as name:
        folder = Path(name)
        person = train_person(folder / "keyboard")
        kept = gains_kept(person)
        figures: dict[str, object] = {"parity_max_abs": parity(person)}
        llama = make_llama(folder / "llama")
        timed = _timed(llama, rounds=40 if full else 16)
        base, adapter = (
            (llama.folder / "int4", llama.folder / "query_value")
            if full
            else (person.folder.with_name("float32"), person.folder)
        )
        weighed = _child("device_memory", str(base), str(adapter), str(ADAPTERS))
    figures |= {
        "decode_speedup_vs_torch_peft": timed["peft"] / timed["all"],
        "decode_ratio_to_genai": timed["genai"] / timed["all"] if "genai" in timed else None,
        "activate_us": timed["activate_us"],
        "load_ms": timed["load_ms"],
        "heap_mb_1000_adapters": weighed["heap_mb"],
        "mapped_mb_1000_adapters": weighed["mapped_mb"],
        "rank8_cost": 1 - timed["base"] / timed["query_value"],
        "rank8_cost_all_linear": 1 - timed["base"] / timed["all"],
        "rows8_speedup": timed["singles_float32"] / timed["batch_float32"],
        "rows8_speedup_int4": timed["singles_int4"] / timed["batch_int4"],
        "gain_kept_int4": kept["int4"],
        "gain_kept_int8": kept["int8"],
        "gain_nats": kept["float32"],
        "decode_ms": timed["all"],
        "batch_ms": timed["batch_float32"],
        "batch_ms_int4": timed["batch_int4"],
    }
    rival: dict[str, object] = {"name": "torch eager + peft", "decode_ms": timed["peft"]}
    rival |= {"genai_decode_ms": timed["genai"]} if "genai" in timed else {}
    return Result(figures, rival)


def _timed(llama: Llama, rounds: int) -> dict[str, float]:
    runtime = llama.runtime("int4")
    adapters = {name: runtime.load(llama.folder / name) for name in ("query_value", "all")}
    ways = {name: our_step(runtime, adapter) for name, adapter in {"base": None, **adapters}.items()}
    spent = {"load_ms": load_ms(llama, runtime), "activate_us": activate_us(adapters["query_value"])}
    installed = find_spec("onnxruntime_genai") is not None
    genai = llama.folder / "genai"
    if installed:
        export_genai(
            llama.base, llama.folder / "int4", {"person": llama.folder / "query_value"}, llama.folder / "genai"
        )
        _on_one_thread(genai / CONFIG)
    # The other library has a process of its own, before ours and after: the machine may have become slower meanwhile.
    others = [_genai(llama, rounds)] if installed else []
    spent |= decode_ms(ways, rounds)
    others += [_genai(llama, rounds)] if installed else []
    spent |= decode_ms({"peft": peft_step(llama, EVERY_LINEAR)}, max(2, rounds // 3), tokens=4)
    for precision in PRECISIONS:
        own = runtime if precision == "int4" else llama.runtime(precision)
        ways = {"batch": batch_step(llama, own, precision), "singles": single_steps(llama, own)}
        times = decode_ms(ways, max(3, rounds // 4), tokens=2)
        spent |= {f"{name}_{precision}": ms for name, ms in times.items()}
    return spent | ({"genai": min(others)} if others else {})


def _genai(llama: Llama, rounds: int) -> float:
    return _child("device_genai", str(llama.folder / "genai"), "person", str(6 * rounds))["step_ms"]


def _on_one_thread(config: Path) -> None:
    settings = json.loads(config.read_text(encoding="utf-8"))
    settings["model"]["decoder"]["session_options"] |= {"intra_op_num_threads": 1, "inter_op_num_threads": 1}
    config.write_text(json.dumps(settings), encoding="utf-8")


def _child(module: str, *arguments: str) -> dict[str, float]:
    command = [sys.executable, "-m", f"fedpeft.bench.{module}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # our own module
    if done.returncode:
        raise RuntimeError(f"{module}: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found
