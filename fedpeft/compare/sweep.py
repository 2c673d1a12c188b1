"""Which learning rate suits a method: each is trained at multiples of its own and scored on validation text.

This is how the ``rate`` of every method was found. Test text has no part in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch

from fedpeft.compare.children import FAILED, Answer, Job, crew
from fedpeft.compare.head import HeadAlone
from fedpeft.compare.pool import Pool, open_pool
from fedpeft.compare.run import chosen, pooled_training
from fedpeft.compare.score import score
from fedpeft.compare.trial import Trial
from fedpeft.errors import FedpeftError
from fedpeft.federation.folder import cores
from fedpeft.methods import Method
from fedpeft.scenario import Scenario, parse_scenario

Sweep = dict[str, dict[float, float | None]]
"""Method -> rate -> validation loss in nats, None where it could not be trained."""


def sweep(
    scenario: Scenario,
    methods: Sequence[str] | None,
    factors: Sequence[float],
    steps: int | None = None,
    heard: Callable[[str, int, int], None] = lambda name, done, total: None,
    workers: int | None = None,
) -> Sweep:
    """Train methods at several rates on all of the pooled text.

    Parameters
    ----------
    scenario : Scenario
    methods : sequence of str, optional
        All by default.
    factors : sequence of float
        What a method's own rate is multiplied by.
    steps : int, optional
        As in :func:`~fedpeft.compare.run.compare`.
    heard : callable
        Told (what, done, total) after each training.
    workers : int, optional
        Trainings at a time.
    """
    torch.set_num_threads(1)
    wanted = chosen(scenario, methods)
    pools = {"full": open_pool(scenario)}
    if pools["full"].task.base.head:
        wanted[HeadAlone.name] = HeadAlone()
    training = pooled_training(scenario, pools["full"], steps)
    found: Sweep = {name: {} for name in wanted}
    jobs: list[tuple[str, Job]] = []
    for name, method in wanted.items():
        pool = _pool(scenario, method, pools)
        for factor in factors:
            rate = float(f"{factor * method.rate:.3g}")
            if pool is None:
                found[name][rate] = None
                continue
            own = Trial(method, rate, training, scenario.seed)
            jobs.append((f"{name} {rate}", partial(_validated, own, pool)))
    for done, (label, answer) in enumerate(crew(jobs, workers or cores()), start=1):
        name, _, rate_text = label.rpartition(" ")
        found[name][float(rate_text)] = None if FAILED in answer else answer["loss"]
        heard(label, done, len(jobs))
    return found


def _pool(scenario: Scenario, method: Method, pools: dict[str, Pool]) -> Pool | None:
    """Return the examples over a base as the method needs it held; None where the scenario refuses the method."""
    tables = scenario.model_dump(mode="json", exclude_none=True)
    if method.name != HeadAlone.name:
        tables["method"] = {"name": method.name, **method.model_dump(mode="json", exclude_none=True)}
    tables["federation"]["partition"] = "all"
    try:
        precision = parse_scenario(tables).precision
        if precision not in pools:
            pools[precision] = open_pool(scenario, precision=precision, like=pools["full"])
    except FedpeftError:
        return None
    return pools[precision]


def _validated(own: Trial, pool: Pool) -> Answer:
    attached = own.attach(pool)
    own.fit(attached, pool, 1.0)
    return {"loss": score(attached.model, pool.task, pool.validation)["loss"]}
