"""A run's adapters over the base held otherwise than they were trained on: the loss, and what is kept of the gain.

Ways of holding the base have names (:mod:`fedpeft.base.held`); ``graph-float32``, ``graph-int8`` and ``graph-int4`` are
the ONNX graph that devices run, through onnxruntime. Every person's share is of their own gain on the base that they
trained on.

The run is only read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fedpeft.adapters import Adapter
from fedpeft.base.held import held_as, name_of
from fedpeft.device import Runtime
from fedpeft.device.folders import EVERYBODY, SCENARIO, adapter_folder, base_folder
from fedpeft.errors import RunError, ScenarioError, nearest
from fedpeft.export.gain import Gain, graph_loss, kept, mean_gain
from fedpeft.export.run import export_run, find_adapters
from fedpeft.export.settings import RunSettings, read_scenario
from fedpeft.federation.client import STATES
from fedpeft.federation.fitted import as_chosen
from fedpeft.federation.folder import RUN, RunFolder
from fedpeft.federation.personal import score_kept
from fedpeft.federation.worker import Worker
from fedpeft.scenario import Scenario, load_scenario
from fedpeft.signing.signature import SigningKey
from fedpeft.tasks.chat import Chat
from fedpeft.tasks.next_word import NextWord

GRAPHS = ("graph-float32", "graph-int8", "graph-int4")
CONTROLS = ("base", "global", "personal")


@dataclass(frozen=True, slots=True)
class Scored:
    """One person's test text, predicted over the base held one way.

    Parameters
    ----------
    client : str
    held : str
        The way's name.
    trained : bool
        Whether it is the one that the person trained on.
    loss : dict of str to float
        Nats per token of ``base``, ``global`` and ``personal``.
    """

    client: str
    held: str
    trained: bool
    loss: dict[str, float]

    def gain(self, control: str) -> Gain:
        """Return what an adapter gains over the bare base."""
        return Gain(self.loss["base"], self.loss[control])


@dataclass(frozen=True, slots=True)
class Line:
    """People's mean over the base held one way.

    Parameters
    ----------
    held : str
        ``as trained`` is what each person trained on.
    people : int
    loss : dict of str to float
        Nats per token of ``base``, ``global`` and ``personal``.
    kept : dict of str to (float or None)
        Share of the gain as trained that ``global`` and ``personal`` keep; None where there was none.
    """

    held: str
    people: int
    loss: dict[str, float]
    kept: dict[str, float | None]


def evaluate_run(
    run: Path,
    held: Sequence[str] = (),
    people: Sequence[str] = (),
    progress: Callable[[str, int, int], None] = lambda way, done, total: None,
) -> list[Scored]:
    """Score what people of a finished run have kept.

    Parameters
    ----------
    run : Path
    held : sequence of str
        Ways of holding the base; those that people trained on are added.
    people : sequence of str
        Everybody with a personal adapter when empty.
    progress : callable
        Told (way, people done, people in all).

    Returns
    -------
    list of Scored
        By way, in the order that was asked for.

    Raises
    ------
    RunError
        When the run holds no adapters, a study of several seeds, or nobody of a name.
    ScenarioError
        For a graph of a task that generates no text.
    FedpeftError
        For an unknown way, or when the base cannot be held so, or an adapter does not fit.
    """
    judged = _Judged(run, people)
    own = judged.own
    ways = list(dict.fromkeys([*(judged.named(name) for name in held), *own.values()]))
    scores: list[Scored] = []
    for way in ways:
        with judged.scorer(way) as score:
            for done, client in enumerate(judged.people, 1):
                scores.append(Scored(client, way, way == own[client], score(client)))
                progress(way, done, len(judged.people))
    return scores


def lines(scores: Iterable[Scored]) -> list[Line]:
    """Return people's means: as trained first, then each way, in the order of the scores."""
    every = list(scores)
    trained = {score.client: score for score in every if score.trained}
    groups = {"as trained": list(trained.values())}
    for score in every:
        groups.setdefault(score.held, []).append(score)
    return [_line(held, group, [trained[score.client] for score in group]) for held, group in groups.items()]


def _line(held: str, group: Sequence[Scored], trained: Sequence[Scored]) -> Line:
    there = {c: mean_gain(score.gain(c) for score in group) for c in CONTROLS[1:]}
    here = {c: mean_gain(score.gain(c) for score in trained) for c in CONTROLS[1:]}
    loss = {"base": there["global"].without, **{c: gain.with_it for c, gain in there.items()}}
    return Line(held, len(group), loss, {c: kept(there[c], here[c]) for c in CONTROLS[1:]})


class _Judged:
    """A finished run, as its own files tell it."""

    def __init__(self, run: Path, people: Sequence[str]) -> None:
        asked = load_scenario(run / SCENARIO)
        self._run, self._scenario = run, as_chosen(asked, RunFolder(run).read(RUN, {}).get("budgets", []))
        if self._scenario.seeds:
            found = f"a study of seeds {self._scenario.seeds}"
            raise RunError("run", found, "a run of one seed", f"such as {run}/seeds/{self._scenario.seeds[0]}")
        self._adapters = find_adapters(run)
        have = [name for name in self._adapters if name != EVERYBODY]
        if EVERYBODY not in self._adapters or not have:
            raise RunError("run", str(run), "one with a global and personal adapters", "let it finish")
        for person in people:
            if person not in have:
                raise RunError("user", person, "somebody with a personal adapter", nearest(person, have))
        self.people = list(dict.fromkeys(people)) or have

    def named(self, name: str) -> str:
        """Return the name of a way in full, as it is compared and shown."""
        dtype = self._scenario.base.dtype
        if name in GRAPHS:
            if self._scenario.task.kind not in (NextWord.kind, Chat.kind):
                expected = "a task that writes text"
                raise ScenarioError("task.kind", self._scenario.task.kind, expected, "leave the graphs out")
            return name
        return name_of(*held_as(name, dtype), usual=dtype)

    @cached_property
    def own(self) -> dict[str, str]:
        """The way that each person trained on."""
        classes = {kind.name: kind for kind in self._scenario.classes}
        if self._scenario.devices:
            of = Worker(self._variant(self._scenario.base.dtype), self._run / STATES).fleet.classes
        else:
            of = dict.fromkeys(self.people, self._scenario.classes[0].name)
        usual = self._scenario.base.dtype
        ways = {name: name_of(str(kind.dtype), str(kind.precision), usual) for name, kind in classes.items()}
        return {client: ways[of[client]] for client in self.people}

    @contextmanager
    def scorer(self, way: str) -> Iterator[Callable[[str], dict[str, float]]]:
        """Hold the base one way, and yield what scores a person over it."""
        if way not in GRAPHS:
            worker = Worker(self._variant(way), self._run / STATES)
            shared = Adapter.load(self._adapters[EVERYBODY], worker.base.fingerprint).vector
            yield lambda client: {c: m["loss"] for c, m in score_kept(worker, client, shared).items()}
            return
        worker = Worker(self._variant(self._scenario.base.dtype), self._run / STATES)
        settings = RunSettings.of(read_scenario(self._run)).with_(
            precision=way.removeprefix("graph-"), variant="optional", backend=None
        )
        with TemporaryDirectory() as folder:
            into = Path(folder)
            export_run(self._run, key=SigningKey.generate(), settings=settings, into=into)
            runtime = Runtime(base_folder(into))
            yield lambda client: _graph_losses(runtime, into, client, worker.splits(client).test)

    def _variant(self, way: str) -> Scenario:
        """Return the scenario with all clients' base held one way, and one example to a row, as long as ever."""
        dtype, precision = held_as(way, self._scenario.base.dtype)
        tables: dict[str, Any] = self._scenario.model_dump(mode="json")
        tables["base"] |= {"dtype": dtype, "precision": precision}
        tables["data"] |= {"packing": False}
        for device in tables["devices"]:
            device |= {"dtype": dtype, "precision": precision}
        return Scenario(**tables)


def _graph_losses(runtime: Runtime, into: Path, client: str, text: Any) -> dict[str, float]:
    worn = {
        "base": None,
        "global": runtime.load(adapter_folder(into, EVERYBODY)),
        "personal": runtime.load(adapter_folder(into, client)),
    }
    return {control: graph_loss(runtime, adapter, text) for control, adapter in worn.items()}
