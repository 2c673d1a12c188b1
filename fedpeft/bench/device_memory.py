"""What a thousand loaded adapters weigh, in a process of their own: called by the benchmark.

Run with a base bundle, an adapter bundle and a number; prints one JSON object. Anonymous memory is what the process
owns and the system cannot drop; the adapters' own numbers are mapped from files and count there only when written to.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from fedpeft.device.loaded import load_adapter
from fedpeft.device.runtime import Runtime


def resident(base: Path, adapter: Path, count: int) -> dict[str, float]:
    """Load one bundle many times, as if it were many people's, use each once, and weigh the process.

    Returns
    -------
    dict of str to float
        ``heap_mb``: anonymous memory that was added, in MB of 10^6 bytes; ``mapped_mb``: of files.
    """
    runtime = Runtime(base)
    signers = {runtime.manifest.signer}
    first = load_adapter(adapter, runtime.manifest.base_fingerprint, runtime.manifest.tensors, signers)
    runtime.logits([1, 5, 6], first)
    before = _memory()
    people = []
    for _ in range(count):
        people.append(load_adapter(adapter, runtime.manifest.base_fingerprint, runtime.manifest.tensors, signers))
        runtime.logits([1, 5, 6], people[-1])
    after = _memory()
    return {
        f"{kind}_mb": (after[key] - before[key]) / 1e6 for kind, key in (("heap", "RssAnon"), ("mapped", "RssFile"))
    }


def _memory() -> dict[str, int]:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return {key: 1024 * int(size) for key, size in re.findall(r"^(RssAnon|RssFile):\s+(\d+) kB", status, re.MULTILINE)}


if __name__ == "__main__":
    print(json.dumps(resident(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))))
