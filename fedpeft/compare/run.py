"""Run a comparison: every method on the same base, examples, batches and steps.

1. The parent loads the base, encodes and pools the clients' text; processes forked from it start warm.
2. Size, memory and time of each method, one process at a time: others would disturb the measurement.
3. Training, saving, reloading and federating, ``workers`` at a time: their numbers do not depend on it.

Full fine-tuning is always among the methods, and first. Each piece is on disk when it is done.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import torch

from fedpeft.compare import trial
from fedpeft.compare.assemble import assemble, reference
from fedpeft.compare.children import FAILED, Answer, Job, crew, forked
from fedpeft.compare.federate import federate, scenario_for
from fedpeft.compare.head import HeadAlone
from fedpeft.compare.pool import MOST_SCORED, Pool, open_pool
from fedpeft.compare.row import FULL, Comparison
from fedpeft.compare.shape import shape_of_pool
from fedpeft.compare.store import Store
from fedpeft.compare.trial import Trial
from fedpeft.errors import FedpeftError, ScenarioError
from fedpeft.federation.folder import cores, environment
from fedpeft.files import write_whole
from fedpeft.methods import Method, parse_method
from fedpeft.methods.method import known_methods
from fedpeft.scenario import Scenario, parse_scenario
from fedpeft.training import Training

SIZES = (0.1, 1.0)
_REFERENCE = "reference"


class Watcher(Protocol):
    """Told what happens."""

    def piece(self, name: str, done: int, total: int) -> None:
        """Hear that a piece is done, ``done`` of ``total``."""

    def changed(self, comparison: Comparison) -> None:
        """Hear of a new row or failure."""


class Silent:
    """A watcher that is not interested."""

    def piece(self, name: str, done: int, total: int) -> None:
        """Do nothing."""

    def changed(self, comparison: Comparison) -> None:
        """Do nothing."""


def compare(
    scenario: Scenario,
    methods: Sequence[str] | None = None,
    sizes: Sequence[float] = SIZES,
    steps: int | None = None,
    out: Path | None = None,
    watcher: Watcher | None = None,
    workers: int | None = None,
    scored: int = MOST_SCORED,
    profilers: int = 1,
) -> Comparison:
    """Compare methods on one scenario.

    Parameters
    ----------
    scenario : Scenario
        Its own ``[method]`` settings hold for the method it names; the others are taken as they come.
    methods : sequence of str, optional
        Names; all by default. Full fine-tuning is added.
    sizes : sequence of float
        Shares of the pooled training examples, in (0, 1].
    steps : int, optional
        Training steps of every method; by default as many as one client would take in all of the scenario's rounds.
    out : Path, optional
        Where finished pieces and ``<name>.json`` are kept; what is there already is not run again.
    watcher : Watcher, optional
    workers : int, optional
        Processes that train at a time; one per core by default. The numbers do not depend on it.
    scored : int
        Test examples that are scored at most.
    profilers : int
        Processes whose time and memory are measured at a time; more than one disturb each other.

    Returns
    -------
    Comparison

    Raises
    ------
    FedpeftError
        When there is nothing to compare: an unknown method, a scenario without text. A method that cannot do what is
        asked is listed with its reason.
    """
    torch.set_num_threads(1)
    shares = _checked(sizes)
    with TemporaryDirectory(prefix="fedpeft-compare-") as scratch:
        # Pieces need a file of their own even where nobody wants to keep them.
        folders = (out or Path(scratch), Path(scratch))
        run = _Run(scenario, methods, shares, steps, scored, *folders, watcher or Silent())
        run.all(workers or cores(), profilers)
        return run.comparison


class _Run:
    def __init__(
        self,
        scenario: Scenario,
        names: Sequence[str] | None,
        shares: list[float],
        steps: int | None,
        scored: int,
        out: Path,
        scratch: Path,
        watcher: Watcher,
    ) -> None:
        self._shares, self._out, self._scratch, self._watcher = shares, out, scratch, watcher
        self._scenario = scenario.with_seed(scenario.seeds[0]) if scenario.seeds else scenario
        self._methods = chosen(self._scenario, names)
        self._pieces: dict[str, dict[str, Answer]] = {}
        self._pools: dict[str, Pool] = {"full": open_pool(self._scenario, scored)}
        pool = self._pools["full"]
        self._training = pooled_training(self._scenario, pool, steps)
        self.comparison = Comparison(
            name=self._scenario.name,
            scenario=self._scenario.model_dump(mode="json", exclude_none=True),
            task=self._scenario.task.kind,
            metric=pool.metric,
            base=self._scenario.base.name,
            seed=self._scenario.seed,
            steps=self._training.steps or 0,
            batch=self._training.batch,
            clients=len(pool.clients),
            train_examples=len(pool.train),
            test_examples=len(pool.test),
            test_predictions=pool.test.tokens,
            shape=shape_of_pool(pool, self._training.batch, self._scenario.seed),
            machine=environment(),
        )
        decisive = self._scenario.model_dump(mode="json", exclude={"name", "description", "method"})
        self._store = Store(
            out / f"{self._scenario.name}.pieces.jsonl",
            {"scenario": decisive, "sizes": shares, "steps": self._training.steps, "scored": scored},
        )
        self._scenarios = self._admitted()

    def all(self, workers: int, profilers: int) -> None:
        """Run what is not in the store yet."""
        total = 1 + len(self._scenarios) * (1 + len(self._shares))
        profiles = [(_REFERENCE, "profile"), *((name, "profile") for name in self._scenarios)]
        self._work(profiles, profilers, 0, total)
        # The largest share last, and full fine-tuning first: attainments are then known as rows appear.
        trials = [(name, str(share)) for name in self._scenarios for share in self._shares]
        self._work(trials, workers, len(profiles), total)
        self._changed()

    def _admitted(self) -> dict[str, Scenario]:
        """Return each method's scenario; those that refuse the task or the base are failures at once."""
        found: dict[str, Scenario] = {}
        for name, method in self._methods.items():
            settings = {"name": name, **method.model_dump(mode="json", exclude_none=True)}
            try:
                found[name] = parse_scenario(scenario_for(self._scenario, settings, method.rate))
                self._pool(found[name].precision)
            except FedpeftError as error:
                self._pieces[name] = {"profile": {FAILED: "refused", "reason": str(error), "stage": "scenario"}}
        return found

    def _work(self, wanted: list[tuple[str, str]], workers: int, before: int, total: int) -> None:
        """Run pieces; those in the store are taken from there."""
        pending: list[tuple[str, Job]] = []
        done = before
        for name, piece in wanted:
            known = self._store.get(f"{name}/{piece}", self._own(name))
            if known is None and not self._has_failed(name):
                pending.append((f"{name}/{piece}", self._job(name, piece)))
                continue
            done += 1
            if known is not None:
                self._take(name, piece, known)
        for label, answer in crew(pending, workers):
            name, _, piece = label.rpartition("/")
            shutil.rmtree(self._scratch / label, ignore_errors=True)
            self._store.put(label, self._own(name), answer)
            self._take(name, piece, answer)
            done += 1
            self._watcher.piece(label, done, total)
            self._changed()

    def _take(self, name: str, piece: str, answer: Answer) -> None:
        if name == _REFERENCE:
            self.comparison = self.comparison.model_copy(update={"reference": reference(answer)})
            if FAILED in answer:
                raise ScenarioError("base.name", self._scenario.base.name, "a base that trains", answer["reason"])
            return
        self._pieces.setdefault(name, {})[piece] = answer

    def _has_failed(self, name: str) -> bool:
        return any(FAILED in answer for answer in self._pieces.get(name, {}).values())

    def _changed(self) -> None:
        before = len(self.comparison.rows) + len(self.comparison.failures)
        empty = self.comparison.model_copy(update={"failures": []})
        self.comparison = assemble(empty, self._methods, [str(s) for s in self._shares], self._pieces)
        if len(self.comparison.rows) + len(self.comparison.failures) != before:
            write_whole(self._out / f"{self._scenario.name}.json", self.comparison.model_dump_json(indent=1) + "\n")
            self._watcher.changed(self.comparison)

    def _own(self, name: str) -> dict[str, Any]:
        method = self._methods.get(name)
        return {} if method is None else {"rate": method.rate, **method.model_dump(mode="json")}

    def _pool(self, precision: str) -> Pool:
        if precision not in self._pools:
            self._pools[precision] = open_pool(
                self._scenario, len(self._pools["full"].test), precision, self._pools["full"]
            )
        return self._pools[precision]

    def _trial(self, method: Method) -> Trial:
        return Trial(method, method.rate, self._training, self._scenario.seed)

    def _job(self, name: str, piece: str) -> Job:
        folder = self._scratch / name / piece
        folder.mkdir(parents=True)
        if name == _REFERENCE:
            return partial(trial.reference, self._trial(HeadAlone()), self._pools["full"], self._shares)
        scenario = self._scenarios[name]
        own, pool = self._trial(self._methods[name]), self._pool(scenario.precision)
        if piece == "profile":
            return partial(_profile, own, pool, folder)
        share = float(piece)
        return partial(_learn, own, pool, share, folder, scenario if share == self._shares[-1] else None)


def _profile(own: Trial, pool: Pool, folder: Path) -> Answer:
    stages: list[tuple[str, Job]] = [("profile", partial(trial.profile, own, pool, folder))]
    if own.method.mergeable:
        stages.append(("merge", partial(trial.merged, pool, folder)))
    return _in_turn(stages)


def _learn(own: Trial, pool: Pool, share: float, folder: Path, scenario: Scenario | None) -> Answer:
    stages: list[tuple[str, Job]] = [("train", partial(trial.learn, own, pool, share, folder))]
    if scenario is not None:
        stages.append(("reload", partial(trial.reload, own, pool, folder)))
        stages.append(("federate", partial(federate, scenario, folder / "states")))
    return _in_turn(stages)


def _in_turn(stages: list[tuple[str, Job]]) -> Answer:
    """Run stages, each in a process of its own, and join their answers; the first failure is the answer."""
    joined: Answer = {}
    for stage, job in stages:
        answer = forked(job)
        if FAILED in answer:
            return {**answer, "stage": stage}
        joined |= answer
    return joined


def chosen(scenario: Scenario, names: Sequence[str] | None) -> dict[str, Method]:
    """Return the methods to compare, full fine-tuning first.

    Raises
    ------
    ScenarioError
        For a name that is not known, or twice.
    """
    table = known_methods()
    wanted = list(table) if names is None else list(names)
    if len(set(wanted)) != len(wanted):
        raise ScenarioError("--methods", ",".join(wanted), "each name once")
    if FULL in table:
        wanted = [FULL, *(name for name in wanted if name != FULL)]
    own = scenario.shared_method
    return {name: own if name == own.name else parse_method({"name": name}) for name in wanted}


def pooled_training(scenario: Scenario, pool: Pool, steps: int | None) -> Training:
    """Return how every method is trained: as long as one client would be in all rounds, if not told otherwise."""
    examples = max(1, len(pool.train) // len(pool.clients))
    total = steps or scenario.federation.rounds * scenario.training.total_steps(examples)
    return scenario.training.model_copy(update={"steps": total, "epochs": None, "max_steps": None})


def _checked(sizes: Sequence[float]) -> list[float]:
    if not sizes or len(set(sizes)) != len(sizes) or not all(0.0 < size <= 1.0 for size in sizes):
        raise ScenarioError("--sizes", ",".join(map(str, sizes)), "different shares above 0 and up to 1", "as in 0.1,1")
    return sorted(float(size) for size in sizes)
