"""Choose a method, its size and its rule for a base, a device and a link, from a measured comparison.

1. Every measured method is attached to the base in question and counted, also at smaller sizes.
2. What does not fit is left out: bytes sent, memory (counted on the base, with the gentlest of the ways to save it that
   suffices: :mod:`fedpeft.training.plan`), and under differential privacy all whose mean is not linear, because noise
   in two factors multiplies.
3. Of what fits, the cheapest to send is taken that keeps at least ``KEEP`` of the best gain; sizes smaller than the
   measured one only if no measured one does. Under differential privacy less is kept: noise grows with the square root
   of the numbers sent, the change they make does not.

The gain is the measured one, of the loss, which is steadier than of the quality, at the data size nearest to the
clients' own. It is multiplied by what was not measured here but is known or assumed: .92 for ``alternate`` and .79 for
``ffa`` (the project's study of 24 clients over 25 rounds), .95 for each halving of the size and .8 for a private head
(assumptions).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import torch

from fedpeft.base import Base, load_base
from fedpeft.compare.advice import Advice, Evidence, Plan, Proposal, Wish
from fedpeft.compare.candidates import Candidate, candidates
from fedpeft.compare.evidence import closest
from fedpeft.compare.reasons import Found, reasons, tables
from fedpeft.compare.row import FULL, Comparison
from fedpeft.compare.within import within
from fedpeft.training.plan import Choice

KEEP = {"none": 0.9, "secure": 0.9, "dp": 0.75}
"""Share of the best gain that a cheaper method has to keep."""
RULE = {"all": 1.0, "alternate": 0.92, "ffa": 0.79}
HALVED, PRIVATE_HEAD = 0.95, 0.8
LEAST = 8
"""Tokens of the shortest window that a scenario may have."""
TRIED = 6
"""Methods that memory is counted for, in the order of preference, until one fits."""
_OTHERS, _SHOWN = 3, 6


@dataclass(frozen=True)
class _Option:
    """A candidate with the gain it is expected to bring."""

    candidate: Candidate
    gain: float


def advise(wish: Wish, comparisons: Sequence[Comparison]) -> Advice:
    """Choose.

    Parameters
    ----------
    wish : Wish
    comparisons : sequence of Comparison
        Measured ones; see :func:`~fedpeft.compare.evidence.read_comparisons`.

    Raises
    ------
    FedpeftError
        When nothing was measured for the task, or the base cannot be loaded.
    """
    torch.set_num_threads(1)
    known = closest(comparisons, wish.task, wish.base)
    labels = None
    if wish.task == "classification":
        labels = wish.classes or known.shape.vocabulary
    base = load_base(wish.base, "float32", labels=labels)
    batch, length = wish.batch or known.batch, wish.length or max(known.shape.length, LEAST)
    share = nearest_share(known, wish.examples)
    options = [_option(candidate, share) for candidate in candidates(base, known.rows) if allowed(candidate, wish)]
    sent = [option for option in options if not _too_large(option, wish)]
    # A private head is the last resort: what it learns is not shared.
    shared = [option for option in sent if option.candidate.head == "shared"]
    ranked = _ranked(shared or sent, wish) or sorted(options, key=lambda o: o.candidate.bytes_up)[:1]
    best, choice = _fitting(base, ranked, batch, length, wish.memory)
    broken = _broken(best, choice, wish)
    found = Found(
        plan=_plan(best, choice, base, batch),
        wish=wish,
        comparison=known,
        share=share,
        best=Proposal(**_proposal(max(options, key=lambda option: option.gain), base)),
        row=best.candidate.row,
        linear=best.candidate.linear,
        shortened=choice.window < length,
    )
    after = [] if broken else ranked[ranked.index(best) + 1 :]
    return Advice(
        fits=not broken,
        plan=found.plan,
        reasons=reasons(found, broken, min(option.candidate.bytes_up for option in options)),
        binding=broken,
        others=[Proposal(**_proposal(option, base)) for option in _distinct(after, best)[:_OTHERS]],
        evidence=_evidence(known, share, best),
        scenario=tables(found),
    )


def allowed(candidate: Candidate, wish: Wish) -> bool:
    """Whether the kind of privacy that is asked for permits a candidate."""
    return wish.privacy != "dp" or (candidate.linear and candidate.row.method != FULL)


def nearest_share(comparison: Comparison, examples: int) -> str:
    """Return the measured share of the data whose examples per client are nearest to a client's own."""
    shares = comparison.rows[0].sizes
    own = {share: score.examples / comparison.clients for share, score in shares.items()}
    return min(own, key=lambda share: abs(log(max(own[share], 1e-9) / max(examples, 1))))


def _option(candidate: Candidate, share: str) -> _Option:
    score = candidate.row.sizes[share]
    known_gains = (score.loss_share, score.gain_share, score.attainment, score.quality)
    measured = next(gain for gain in known_gains if gain is not None)
    gain = measured * RULE[candidate.partition] * HALVED**candidate.halvings
    gain *= PRIVATE_HEAD if candidate.head == "private" else 1.0
    return _Option(candidate, gain)


def _fitting(
    base: Base, ranked: Sequence[_Option], batch: int, length: int, budget: int | None
) -> tuple[_Option, Choice]:
    """Return the first option that fits the memory, and how; when none does, the one that needs least.

    Of each method the first is tried, of so many methods: sizes and rules hardly differ in memory.
    """
    least: tuple[_Option, Choice] | None = None
    for option in _distinct(ranked)[:TRIED]:
        choice = within(base, option.candidate, batch, length, budget)
        if budget is None or choice.footprint.total <= budget:
            return option, choice
        if least is None or choice.footprint.total < least[1].footprint.total:
            least = option, choice
    assert least is not None  # noqa: S101 - there is at least one option
    return least


def _too_large(option: _Option, wish: Wish) -> bool:
    return wish.uplink is not None and option.candidate.bytes_up > wish.uplink


def _broken(option: _Option, choice: Choice, wish: Wish) -> list[str]:
    broken = ["uplink"] if _too_large(option, wish) else []
    if wish.memory is not None and choice.footprint.total > wish.memory:
        broken.append("memory")
    return broken


def _ranked(options: list[_Option], wish: Wish) -> list[_Option]:
    """Return options from the one to take: enough of the best gain, measured as they are, by bytes; then the others."""
    enough = KEEP[wish.privacy] * max((option.gain for option in options), default=0.0)

    def place(option: _Option) -> tuple[bool, bool, float, float]:
        little = option.gain < enough
        smaller = option.candidate.halvings > 0
        return little, not little and smaller, -option.gain if little else option.candidate.bytes_up, -option.gain

    return sorted(options, key=place)


def _distinct(options: Sequence[_Option], but: _Option | None = None) -> list[_Option]:
    """Return the first option of each method."""
    seen, kept = {but.candidate.row.method} if but else set(), []
    for option in options:
        if option.candidate.row.method not in seen:
            seen.add(option.candidate.row.method)
            kept.append(option)
    return kept


def _proposal(option: _Option, base: Base) -> dict[str, Any]:
    c = option.candidate
    settings = c.method.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    return {
        "method": {"name": c.method.name, **settings},
        "rate": c.method.rate,
        "partition": c.partition,
        "head": c.head,
        "trainable": c.trainable,
        "share": c.trainable / base.parameters,
        "bytes_up": c.bytes_up,
        "bytes_down": c.bytes_down,
        "adapter_bytes": c.adapter_bytes,
        "gain": option.gain,
        "measured": c.halvings == 0 and c.partition == "all" and c.head == "shared",
    }


def _plan(option: _Option, choice: Choice, base: Base, batch: int) -> Plan:
    held, thrift = choice.held, choice.thrift
    return Plan(
        **_proposal(option, base),
        dtype=held.dtype,
        precision=held.precision,
        chunk=thrift.chunk,
        checkpointing=thrift.checkpointing,
        batch=batch,
        micro_batch=thrift.micro_batch if thrift.micro_batch < batch else None,
        window=choice.window,
        memory_bytes=choice.footprint.total,
    )


def _evidence(comparison: Comparison, share: str, best: _Option) -> list[Evidence]:
    """Return the chosen method's row, and the best ones beside it."""
    rows = sorted(comparison.rows, key=lambda row: (row.method != best.candidate.row.method, -row.sizes[share].quality))
    return [
        Evidence(
            method=row.method,
            algebra=row.algebra,
            measured=row.sizes[share],
            trainable=row.trainable,
            bytes_up=row.bytes_up,
            peak_mb=row.peak_mb,
        )
        for row in rows[:_SHOWN]
    ]
