"""Give memory back to the system as soon as it is not needed: freed blocks, and pages of a file that were read once.

glibc raises the size from which it does so whenever such a block is freed, up to 32 MB. Activations and logits, or
layers before they are quantized, then stay in the heap between tensors that live on, and a process keeps several times
what it uses (SmolLM2-135M, LoRA, 4x128 tokens: 1890 MB in float32 against 1350; in bfloat16 with checkpointing 75 MB
less when the size is 256 kB than when it is 1 MB). A size that is set stays as it is.

Pages of a mapped file stay resident as long as the file is mapped and memory is not short: weights that were read only
to be quantized would lie beside their packed copies (SmolLM2-135M in bfloat16: 212 MB).
"""

from __future__ import annotations

import ctypes
import mmap
from contextlib import suppress
from functools import cache
from pathlib import Path

from torch import Tensor

_MMAP_THRESHOLD = -3
_LARGE = 1 << 18
_DONTNEED = 4
_MAPS = Path("/proc/self/maps")


@cache
def give_back() -> None:
    """Set it for the whole process, once; other C libraries are left as they are."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(_MMAP_THRESHOLD, _LARGE)


def mapped_weights() -> list[tuple[int, int]]:
    """Return the address ranges, first and behind the last byte, at which weight files are mapped; none elsewhere."""
    found = []
    with suppress(OSError):
        for line in _MAPS.read_text(errors="replace").splitlines():
            if line.endswith(".safetensors"):
                start, end = line.split(maxsplit=1)[0].split("-")
                found.append((int(start, 16), int(end, 16)))
    return found


def drop_pages(weight: Tensor, mapped: list[tuple[int, int]]) -> None:
    """Take a weight's pages out of memory where they are a file's, which has them still should anybody look again.

    Parameters
    ----------
    weight : Tensor
        Contiguous, never written to.
    mapped : list of tuple of int
        As :func:`mapped_weights` returns it. A weight outside is left as it is: its pages have no file behind them.
    """
    first, last = weight.data_ptr(), weight.data_ptr() + weight.nbytes
    if not any(start <= first and last <= end for start, end in mapped):
        return
    # Whole pages only: what lies at the edges is partly a neighbour's.
    first, last = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE, last // mmap.PAGESIZE * mmap.PAGESIZE
    if first < last:
        with suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _DONTNEED)
