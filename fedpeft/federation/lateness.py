"""Who answers too late in a simulated round.

Real devices are late by themselves; a simulation draws it, so that over-selection and stragglers can be studied and a
run be repeated to the bit, in every engine and after every interruption. Each client asked in round r draws u from
[0, 1) by seed, round and its place among the names: the smaller, the sooner it answers. Those with u ≥ 1 − s, s being
``federation.stragglers``, never answer in time; of the others the first ``federation.cohort`` are waited for, and the
round goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from fedpeft.scenario import Scenario
from fedpeft.seeds import stream

LATE = "late: the round went on without them"
"""The reason for which a client is left out."""

Late = Callable[[int, Sequence[str]], Collection[str]]
"""From round and clients asked to those who will not be waited for."""


def nobody(round_: int, asked: Sequence[str]) -> Collection[str]:
    """Pretend nothing: whoever answers in time is in."""
    return ()


def drawn(scenario: Scenario) -> Late:
    """Return the draw of a simulation.

    Parameters
    ----------
    scenario : Scenario
    """
    federation = scenario.federation

    def late(round_: int, asked: Sequence[str]) -> Collection[str]:
        names = sorted(asked)
        draws = stream(scenario.seed, "late", round_).random(len(names))
        soonest = sorted(zip(draws.tolist(), names, strict=True))
        on_time = [name for draw, name in soonest if draw < 1.0 - federation.stragglers]
        return set(names) - set(on_time[: federation.cohort])

    return late
