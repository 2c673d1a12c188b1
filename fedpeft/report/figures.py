"""A record reduced to the figures that are published.

People count alike, however much they wrote: every mean is over people, each scored on their own test text.
``perplexity`` is ``exp(mean over people of loss)``, the geometric mean of their perplexities, so that one
person whom no model predicts cannot drown the others. *Gain* is ``global loss - personal loss`` in nats per
token. Differences are ``first - second`` in all metrics: for top-1 and top-3 more is better, for loss less is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import ceil, nan
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpeft.report.bootstrap import mean_ends
from fedpeft.report.devices import devices
from fedpeft.report.record import CONTROLS, Control, Person, Record, Round, perplexity
from fedpeft.report.replies import rouge_l

PAIRS: tuple[tuple[Control, Control], ...] = (
    ("personal", "global"),
    ("global", "base"),
    ("personal", "local"),
    ("personal", "wrong_user"),
)
"""The differences that matter: of personalizing, of federating, of not training alone, of it being yours."""


def figures(record: Record) -> dict[str, Any]:
    """Reduce a record to named figures, ready for JSON.

    Returns
    -------
    dict
        ``task``; ``mean_top3``, ``mean_top1``, ``keystrokes_saved``, ``perplexity``: by control;
        ``improved_share``, ``harmed_share``: people whose test loss is strictly lower, or higher, with the
        personal adapter than with the global one; ``kept_global_share``: people whose gate stayed shut;
        ``median_gain``, ``worst_decile_gain``: nats per token, the latter the mean of the worst tenth of
        people, rounded up to whole people;
        ``intervals``: for ``top1``, ``top3`` and ``loss``, each of :data:`PAIRS` as ``personal-global`` with ``mean``,
        ``low`` and ``high``;
        ``rouge_l``: null where no replies were written anew (:mod:`fedpeft.report.replies`);
        ``devices``: by class, null where all are alike (:mod:`fedpeft.report.devices`);
        ``bytes_up``, ``bytes_down``, ``bytes_per_client_round``: mean over rounds; ``base_bytes``,
        ``bytes_ratio``; ``quantization_error``: mean over rounds; ``rounds``, ``burnt_rounds``, ``clients``,
        ``personalized``, ``seconds``; ``seeds``, ``seed_mean`` and ``seed_sd``: the main figures by seed,
        their mean and their sample standard deviation, null when the record is no study.
        What the record cannot tell yet is null.
    """
    people = sorted(record.people, key=lambda person: person.client)
    every_round = [r for rounds in record.histories for r in rounds if r.round > 0]
    # Averaged over seeds, a gate is hardly ever shut: they are counted seed by seed.
    gates = [person.gate for part in (record.seeds.values() or [record]) for person in part.people]
    up, down = (_mean(every_round, name) for name in ("bytes_up", "bytes_down"))
    both = None if up is None or down is None else up + down
    base_bytes = record.run.base.float32_bytes
    by_seed = {str(seed): _main(part.people) for seed, part in record.seeds.items()}
    return {
        **_main(people),
        "task": record.task,
        "keystrokes_saved": _mean_scores(people, "keystrokes_saved"),
        "kept_global_share": _share([gate == 0.0 for gate in gates]),
        **_gains(people),
        "intervals": _intervals(people),
        "rouge_l": rouge_l(record.samples),
        "devices": devices(record),
        "bytes_per_client_round": both,
        "bytes_up": up,
        "bytes_down": down,
        "base_bytes": base_bytes,
        "bytes_ratio": None if both is None else both / base_bytes,
        "quantization_error": _mean(every_round, "quantization_error"),
        "rounds": max((r.round for r in every_round), default=0),
        "burnt_rounds": sum(r.burnt for r in every_round),
        "clients": record.run.clients,
        "personalized": len(people),
        "seconds": record.run.seconds,
        "seeds": by_seed or None,
        "seed_mean": _over_seeds(list(by_seed.values()), fmean, 1) if by_seed else None,
        "seed_sd": _over_seeds(list(by_seed.values()), stdev, 2) if by_seed else None,
    }


def _main(people: Sequence[Person]) -> dict[str, Any]:
    losses = _mean_scores(people, "loss")
    gains = [person.test["global"].loss - person.test["personal"].loss for person in people]
    return {
        "mean_top1": _mean_scores(people, "top1"),
        "mean_top3": _mean_scores(people, "top3"),
        "perplexity": {c: None if loss is None else perplexity(loss) for c, loss in losses.items()},
        "improved_share": _share([gain > 0.0 for gain in gains]),
        "harmed_share": _share([gain < 0.0 for gain in gains]),
    }


def _gains(people: Sequence[Person]) -> dict[str, float | None]:
    gains = sorted(person.test["global"].loss - person.test["personal"].loss for person in people)
    if not gains:
        return {"median_gain": None, "worst_decile_gain": None}
    worst = gains[: ceil(len(gains) / 10)]
    return {"median_gain": float(np.median(gains)), "worst_decile_gain": fmean(worst)}


def _intervals(people: Sequence[Person]) -> dict[str, dict[str, dict[str, float | None]]]:
    names = [f"{first}-{second}" for first, second in PAIRS]
    return {
        metric: dict(zip(names, mean_ends(_differences(people, metric)), strict=True))
        for metric in ("top1", "top3", "loss")
    }


def _differences(people: Sequence[Person], metric: str) -> NDArray[np.float64]:
    """Return one row per person, one column per pair; NaN where a person lacks one of the two."""
    rows = [
        [
            getattr(p.test[a], metric) - getattr(p.test[b], metric) if a in p.test and b in p.test else nan
            for a, b in PAIRS
        ]
        for p in people
    ]
    return np.array(rows).reshape(len(people), len(PAIRS))


def _over_seeds(
    seeds: Sequence[dict[str, Any]], statistic: Callable[[list[float]], float], needs: int
) -> dict[str, Any]:
    """Apply a statistic to each figure's values over seeds; null where fewer than ``needs`` are known."""
    reduced: dict[str, Any] = {}
    for name, first in seeds[0].items():
        values = [seed[name] for seed in seeds]
        if isinstance(first, dict):
            reduced[name] = _over_seeds(values, statistic, needs)
        else:
            known = [value for value in values if value is not None]
            reduced[name] = statistic(known) if len(known) >= needs else None
    return reduced


def _mean_scores(people: Sequence[Person], metric: str) -> dict[Control, float | None]:
    """Average a metric over people; null where there is nobody, or somebody without that control."""
    return {
        control: fmean(getattr(person.test[control], metric) for person in people)
        if people and all(control in person.test for person in people)
        else None
        for control in CONTROLS
    }


def _mean(rounds: Iterable[Round], name: str) -> float | None:
    known = [getattr(r, name) for r in rounds if getattr(r, name) is not None]
    return fmean(known) if known else None


def _share(flags: Sequence[bool]) -> float | None:
    return fmean(flags) if flags else None
