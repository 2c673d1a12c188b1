"""onnxruntime-genai on the same graph with the same adapter, in a process of its own: called by the benchmark.

Run with a folder of :func:`fedpeft.export.genai.export_genai`, the adapter's owner, and how many tokens; prints one
JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from statistics import median

import onnxruntime_genai as og

PROMPT = 32


def step_ms(folder: str, owner: str, tokens: int) -> float:
    """Return milliseconds of processor time per generated token, as :func:`fedpeft.bench.device_speed.decode_ms`."""
    model = og.Model(folder)
    adapters = og.Adapters(model)
    adapters.load(f"{folder}/{owner}.onnx_adapter", owner)
    parameters = og.GeneratorParams(model)
    parameters.set_search_options(max_length=PROMPT + tokens + 8, do_sample=False)
    generator = og.Generator(model, parameters)
    generator.set_active_adapter(adapters, owner)
    generator.append_tokens(list(range(5, 5 + PROMPT)))
    spent = []
    for _ in range(tokens):
        began = time.process_time()
        generator.generate_next_token()
        spent.append(1e3 * (time.process_time() - began))
        if generator.is_done():
            break
    return median(sorted(spent[1:])[: max(1, len(spent) // 2)])


if __name__ == "__main__":
    print(json.dumps({"step_ms": step_ms(sys.argv[1], sys.argv[2], int(sys.argv[3]))}))
