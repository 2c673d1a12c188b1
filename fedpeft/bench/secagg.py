"""What secure aggregation costs and withstands: speed against Flower's SecAgg+, bytes, dropouts, altered messages."""

from __future__ import annotations

import resource
from typing import Any

import numpy as np

from fedpeft.bench import secagg_dropouts, secagg_fuzz, secagg_speed
from fedpeft.bench.result import Result
from fedpeft.bench.secagg_overhead import overhead_share
from fedpeft.secagg.pairwise.packing import packed_size
from fedpeft.secagg.pairwise.rehearsal import Rehearsal

CLIENTS, GONE, BITS = 100, 10, 16
_ALTERED = 10_000
"""Messages of each kind that are altered and must be refused."""

SIZE = 20_000
"""Coordinates in the round whose bytes are counted."""


def run(full: bool) -> Result:
    """Measure.

    Parameters
    ----------
    full : bool
        5,000 dropout patterns instead of 1,000, and longer runs for the overhead.

    Returns
    -------
    Result
        ``mask_speedup_vs_flower`` in the 16-bit ring of the default scenario, and in a 32-bit ring as Flower's;
        ``handshake_bytes_per_client_round`` is all that a client sends besides its vector, on average, in a round after
        the first of a run with 100 clients, 10 of whom vanish.
    """
    # First, while the process is small: its peak then shows what altered messages can make it allocate.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fuzzed = secagg_fuzz.fuzz(_ALTERED)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    mask, flower_mask = secagg_speed.masking(BITS, 5)
    wide, flower_wide = secagg_speed.masking(32, 5)
    unmask, flower_unmask = secagg_speed.unmasking(2 if full else 1)
    dropouts = secagg_dropouts.play(5_000 if full else 1_000)
    figures: dict[str, Any] = {
        "mask_speedup_vs_flower": flower_mask / mask,
        "mask_speedup_vs_flower_32_bits": flower_wide / wide,
        "unmask_speedup_vs_flower": flower_unmask / unmask,
        "mask_ms": mask,
        "unmask_ms": unmask,
        **traffic(),
        "dropout_patterns": dropouts.patterns,
        "dropouts": dropouts.vanished,
        "burnt": dropouts.burnt,
        "wrong_sums": dropouts.wrong,
        "malformed_tried": sum(fuzzed.tried.values()),
        "malformed_kinds": len(fuzzed.tried),
        "malformed_accepted": fuzzed.accepted,
        "malformed_crashed": fuzzed.crashed,
        "malformed_memory_mib": grown / 1024,
    }
    figures["overhead_share"] = overhead_share(full)
    rival = {"name": "flwr SecAgg+ functions", "mask_ms": flower_mask, "unmask_ms": flower_unmask}
    return Result(figures, {**rival, "bytes_per_coordinate": 8})


def traffic() -> dict[str, float]:
    """Count the bytes of the second round of a run: everything that goes up and down but the model."""
    names = [f"client{i:03}" for i in range(CLIENTS)]
    rehearsal = Rehearsal.of(names, SIZE, BITS)
    payloads = dict.fromkeys(names, np.zeros(SIZE, np.uint16))
    rehearsal.finish(rehearsal.contributed(1, payloads))
    collected = rehearsal.server.open_round(2, "train", "model", names)
    up = down = 0
    for name in names[GONE:]:
        message = rehearsal.clients[name].contribute(2, "train", "model", names, payloads[name])
        collected.add(name, message)
        up += len(message)
    while (asked := collected.requests()) is not None:
        stage, requests = asked
        for name, request in requests.items():
            reply = rehearsal.clients[name].answer(stage, request)
            collected.answer(stage, name, reply)
            up, down = up + len(reply), down + len(request)
    collected.sum()
    here = CLIENTS - GONE
    handshake = up / here - packed_size(SIZE, BITS)
    return {
        "bytes_per_coordinate": (packed_size(secagg_speed.UNMASK_SIZE, BITS) + handshake) / secagg_speed.UNMASK_SIZE,
        "handshake_bytes_per_client_round": handshake,
        "handshake_down_bytes_per_client_round": down / here,
    }
