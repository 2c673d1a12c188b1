"""Choose a method, its size and its rule for a base, a device and a link, from a measured comparison.

1. Every measured method is attached to the base in question and counted, also at smaller sizes.
2. What does not fit is left out: bytes sent, memory (estimated, with the cheapest of the ways to save it that
   suffices), and under differential privacy all whose mean is not linear, because noise in two factors multiplies.
3. Of what fits, the cheapest to send is taken that keeps at least ``KEEP`` of the best gain; sizes smaller than the
   measured one only if no measured one does. Under differential privacy less is kept: noise grows with the square root
   of the numbers sent, the change they make does not.

The gain is the measured one, of the loss, which is steadier than of the quality, at the data size nearest to the
clients' own. It is multiplied by what was not measured here but is known or assumed: .92 for ``alternate`` and .79 for
``ffa`` (the project's study of 24 clients over 25 rounds), .95 for each halving of the size and .8 for a private head
(assumptions).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log

import torch

from fedpeft.base import load_base
from fedpeft.compare.advice import Advice, Evidence, Plan, Wish
from fedpeft.compare.candidates import Candidate, candidates
from fedpeft.compare.estimate import CHUNK, Thrift, memory
from fedpeft.compare.evidence import closest
from fedpeft.compare.reasons import Found, reasons, tables
from fedpeft.compare.row import FULL, Comparison, Shape
from fedpeft.compare.shape import shape_of

KEEP = {"none": 0.9, "secure": 0.9, "dp": 0.75}
"""Share of the best gain that a cheaper method has to keep."""
RULE = {"all": 1.0, "alternate": 0.92, "ffa": 0.79}
HALVED, PRIVATE_HEAD = 0.95, 0.8
_OTHERS, _SHOWN = 3, 6


@dataclass(frozen=True)
class _Option:
    """A candidate with the memory it is estimated to take and the gain it is expected to bring."""

    candidate: Candidate
    thrift: Thrift
    batch: int
    memory: int
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
    batch, length = wish.batch or known.batch, wish.length or known.shape.length
    predictions = batch if labels else batch * (length - 1)
    shape = shape_of(base, batch, length, predictions)
    share = nearest_share(known, wish.examples)
    options = [
        _option(candidate, wish, shape, known, share)
        for candidate in candidates(base, known.rows)
        if allowed(candidate, wish)
    ]
    fitting = [option for option in options if not _broken(option, wish)]
    # A private head is the last resort: what it learns is not shared.
    shared = [option for option in fitting if option.candidate.head == "shared"]
    chosen = _ranked(shared or fitting, wish)
    best = chosen[0] if chosen else min(options, key=lambda option: _overshoot(option, wish))
    found = Found(
        plan=_plan(best, shape),
        wish=wish,
        comparison=known,
        share=share,
        best=_plan(max(options, key=lambda option: option.gain), shape),
        row=best.candidate.row,
        linear=best.candidate.linear,
    )
    return Advice(
        fits=bool(chosen),
        plan=found.plan,
        reasons=reasons(found, bool(chosen), _broken(best, wish), _least(options)),
        binding=_broken(best, wish),
        others=[_plan(option, shape) for option in _distinct(chosen[1:], best)],
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


def _option(candidate: Candidate, wish: Wish, shape: Shape, known: Comparison, share: str) -> _Option:
    score = candidate.row.sizes[share]
    known_gains = (score.loss_share, score.gain_share, score.attainment, score.quality)
    measured = next(gain for gain in known_gains if gain is not None)
    gain = measured * RULE[candidate.partition] * HALVED**candidate.halvings
    gain *= PRIVATE_HEAD if candidate.head == "private" else 1.0
    tried = [
        _Option(candidate, thrift, batch, _memory(candidate, thrift, batch, shape, known), gain)
        for thrift, batch in _thrifts(candidate, shape)
    ]
    return next((o for o in tried if wish.memory is None or o.memory <= wish.memory), tried[-1])


def _memory(candidate: Candidate, thrift: Thrift, batch: int, shape: Shape, known: Comparison) -> int:
    predictions = max(1, shape.predictions * batch // shape.batch)
    smaller = shape.model_copy(update={"batch": batch, "predictions": predictions})
    return memory(smaller, candidate.trainable, thrift, candidate.row, known.shape)


def _thrifts(candidate: Candidate, shape: Shape) -> Iterator[tuple[Thrift, int]]:
    """Yield ways to train, each needing less memory than the one before."""
    precision = candidate.method.precision
    yield Thrift("float32", precision), shape.batch
    dtype = "float32" if candidate.method.name == FULL else "bfloat16"
    yield Thrift(dtype, precision), shape.batch
    chunk = shape.predictions > CHUNK and shape.predictions > shape.batch
    if chunk:
        yield Thrift(dtype, precision, chunk), shape.batch
    checkpointing = candidate.method.checkpointing
    if checkpointing:
        yield Thrift(dtype, precision, chunk, checkpointing), shape.batch
    batch = shape.batch
    while batch > 1:
        batch //= 2
        yield Thrift(dtype, precision, chunk, checkpointing), batch


def _broken(option: _Option, wish: Wish) -> list[str]:
    broken = []
    if wish.uplink is not None and option.candidate.bytes_up > wish.uplink:
        broken.append("uplink")
    if wish.memory is not None and option.memory > wish.memory:
        broken.append("memory")
    return broken


def _overshoot(option: _Option, wish: Wish) -> float:
    """Return by what factor the worst limit is broken."""
    up = option.candidate.bytes_up / wish.uplink if wish.uplink else 0.0
    return max(up, option.memory / wish.memory if wish.memory else 0.0)


def _ranked(options: list[_Option], wish: Wish) -> list[_Option]:
    """Return options from the one to take: enough of the best gain, measured as they are, by bytes; then the others."""
    enough = KEEP[wish.privacy] * max((option.gain for option in options), default=0.0)

    def place(option: _Option) -> tuple[bool, bool, float, float]:
        little = option.gain < enough
        smaller = option.candidate.halvings > 0
        return little, not little and smaller, -option.gain if little else option.candidate.bytes_up, -option.gain

    return sorted(options, key=place)


def _distinct(options: Sequence[_Option], best: _Option) -> list[_Option]:
    """Return the next few, each of another method."""
    seen, kept = {best.candidate.row.method}, []
    for option in options:
        if option.candidate.row.method not in seen:
            seen.add(option.candidate.row.method)
            kept.append(option)
    return kept[:_OTHERS]


def _least(options: Sequence[_Option]) -> tuple[int, int]:
    """Return the fewest bytes sent and the least memory of any candidate."""
    return min(o.candidate.bytes_up for o in options), min(o.memory for o in options)


def _plan(option: _Option, shape: Shape) -> Plan:
    c, thrift = option.candidate, option.thrift
    settings = c.method.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    return Plan(
        method={"name": c.method.name, **settings},
        rate=c.method.rate,
        partition=c.partition,
        head=c.head,
        dtype=thrift.dtype,
        precision=thrift.precision,
        chunk=CHUNK if thrift.chunk else None,
        checkpointing=thrift.checkpointing,
        batch=option.batch,
        trainable=c.trainable,
        share=c.trainable / shape.parameters,
        bytes_up=c.bytes_up,
        bytes_down=c.bytes_down,
        adapter_bytes=c.adapter_bytes,
        memory_bytes=option.memory,
        gain=option.gain,
        measured=c.halvings == 0 and c.partition == "all" and c.head == "shared",
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
