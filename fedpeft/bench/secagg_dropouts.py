"""Whole rounds with random dropouts at every stage: every opened sum must be the plaintext sum to the bit."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedpeft.errors import RoundBurnt
from fedpeft.secagg.pairwise.packing import ring_dtype
from fedpeft.secagg.pairwise.rehearsal import Rehearsal

STAGES = ("contribute", "survivors", "pairs", "lock", "unmask")
CLIENTS, LENGTH = 6, 4
RINGS = (16, 12, 32, 8)


@dataclass
class Outcome:
    """What became of the rounds.

    Parameters
    ----------
    patterns, wrong, burnt : int
        Rounds, sums that were not the plaintext sum, rounds that too few finished.
    vanished : dict of str to int
        Clients that left, by stage.
    """

    patterns: int = 0
    wrong: int = 0
    burnt: int = 0
    vanished: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))


def play(patterns: int, seed: int = 0) -> Outcome:
    """Run so many rounds, spread over rings of several widths."""
    outcome, rng = Outcome(), np.random.default_rng(seed)
    for bits in RINGS:
        run = Rehearsal.of([f"client{i}" for i in range(CLIENTS)], LENGTH, bits)
        for round_ in range(1, patterns // len(RINGS) + 1):
            one(run, round_, outcome, rng)
    return outcome


def one(run: Rehearsal, round_: int, outcome: Outcome, rng: np.random.Generator) -> None:
    """Run one round with a random cohort, random integers and random leavers, and hold its sum against numpy's."""
    terms = run.server.manifest.of("train")
    names = list(run.clients)
    cohort = [names[i] for i in rng.permutation(CLIENTS)[: rng.integers(terms.n_min, CLIENTS + 1)]]
    drawn = rng.integers(0, terms.levels, (len(cohort), LENGTH), np.uint64, endpoint=True)
    sent: dict[str, NDArray[np.unsignedinteger]] = dict(zip(cohort, drawn.astype(ring_dtype(terms.bits)), strict=True))
    share = rng.choice([0.0, 0.1, 0.25])
    leaving = {client: STAGES[rng.integers(len(STAGES))] for client in cohort if rng.random() < share}
    for stage in leaving.values():
        outcome.vanished[stage] += 1
    gone: set[str] = set()

    def answers(stage: str, client: str) -> bool:
        if leaving.get(client) == stage:
            gone.add(client)
        return client not in gone

    outcome.patterns += 1
    collected = run.contributed(round_, sent, [client for client in cohort if leaving.get(client) == "contribute"])
    try:
        run.finish(collected, answers)
        total, contributors = collected.sum()
    except RoundBurnt:
        outcome.burnt += 1
        return
    expected = np.sum([sent[client] for client in contributors], axis=0, dtype=np.uint64)
    outcome.wrong += not np.array_equal(total, expected)
