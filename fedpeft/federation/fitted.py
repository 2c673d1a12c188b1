"""A class of devices within its budget of memory: how it holds the base, and how it saves.

What is left open is chosen by :mod:`fedpeft.training.plan`, once for all that a class trains: the shared adapter, and
a person's own on top of it. What the scenario says stays. The choice follows from the scenario alone, so that all
engines, all clients of a class and a resumed run make the same one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpeft.errors import FedpeftError
from fedpeft.methods.attached import PRIVATE, SHARED
from fedpeft.scenario import Scenario
from fedpeft.scenario.devices import PRECISIONS, DeviceTable
from fedpeft.tasks import Task
from fedpeft.training.amounts import amount
from fedpeft.training.footprint import Footprint, Held, Rehearsal
from fedpeft.training.plan import Choice, Thrift, megabytes, plan, thrifts, windows

SHARE = 0.8
"""Of the memory that is free now, what ``memory = "auto"`` gives to training."""
_SAVING = ("checkpointing", "chunk", "micro_batch")
_MEMINFO, _LIMIT, _USED = (
    Path("/proc/meminfo"),
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory.current"),
)


def fitted(scenario: Scenario, kind: DeviceTable, task: Task[Any]) -> tuple[DeviceTable, dict[str, Any] | None]:
    """Return a class with nothing left open, and what the run's record says of the choice; None without a budget.

    Parameters
    ----------
    scenario : Scenario
    kind : DeviceTable
        With its dtype.
    task : Task
        Over the base in full, to which nothing is attached.

    Raises
    ------
    FedpeftError
        When nothing fits; it says what the least needs.
    """
    if kind.memory is None:
        return kind, None
    budget = amount(kind.memory, "training.memory")
    choice = _chosen(scenario, kind, task, budget)
    saving = {name: getattr(choice.thrift, name) for name in _SAVING}
    found = {"precision": choice.held.precision, "window": choice.window, **saving}
    return kind.model_copy(update=found), {"name": kind.name, **choice.record(budget)}


def _chosen(scenario: Scenario, kind: DeviceTable, task: Task[Any], budget: int) -> Choice:
    trainings = {SHARED: scenario.training, PRIVATE: scenario.personalization.training}
    method, private = scenario.shared_method, scenario.private_method
    if not scenario.personalization.people:
        del trainings[PRIVATE]
    rehearsals: dict[Held, Rehearsal] = {}

    def count(held: Held, thrift: Thrift, window: int) -> Footprint:
        if held not in rehearsals:
            rehearsals[held] = Rehearsal(task, held, method, private)
        found = [
            rehearsals[held].footprint(
                thrift.of(training), slot if private is not None else SHARED, task.cut(window).fullest(training.batch)
            )
            for slot, training in trainings.items()
        ]
        return max(found, key=lambda footprint: footprint.total)

    by_hand = {name for name in ("chunk", "micro_batch") if any(getattr(t, name) for t in trainings.values())}
    by_hand |= {name for name in _SAVING if getattr(kind, name) is not None}
    widest = max(trainings.values(), key=lambda training: training.batch)
    ways = thrifts(
        kind.thrifty(widest),
        chunks=type(task).features is not Task.features,
        checkpoints=method.checkpointing,
        fixed=sorted(by_hand),
    )
    precisions = PRECISIONS if kind.precision == "auto" else (str(kind.precision),)
    helds = [Held(str(kind.dtype), precision) for precision in precisions]
    lengths = [kind.window] if kind.window else windows(scenario.data.window, task.shortest)
    return plan(budget, helds, ways, lengths, count)


def as_chosen(scenario: Scenario, budgets: Sequence[Mapping[str, Any]]) -> Scenario:
    """Return a scenario with what was chosen instead of its budgets.

    Parameters
    ----------
    scenario : Scenario
    budgets : sequence of mapping
        As a run's record has them.
    """
    tables, chosen = scenario.model_dump(mode="json"), {budget["name"]: budget for budget in budgets}
    tables["training"]["memory"] = None
    for device in tables["devices"]:
        device["memory"] = None
        device |= {key: chosen[device["name"]][key] for key in ("precision", "window") if device["name"] in chosen}
    if "" in chosen:
        tables["base"]["precision"], tables["data"]["window"] = chosen[""]["precision"], chosen[""]["window"]
    return Scenario(**tables)


def settled(scenario: Scenario, workers: int) -> Scenario:
    """Return a scenario in which ``auto`` budgets are numbers: what this machine has free, shared by its workers.

    Parameters
    ----------
    scenario : Scenario
    workers : int
        Processes that train at a time.
    """
    if scenario.training.memory != "auto" and all(kind.memory != "auto" for kind in scenario.devices):
        return scenario
    each = megabytes(int(SHARE * available() / workers))
    told = scenario.model_dump()
    for table in (told["training"], *told["devices"]):
        if table["memory"] == "auto":
            table["memory"] = each
    return Scenario(**told)


def available() -> int:
    """Return the bytes that are free for new work: what the system says, within the control group's limit.

    Raises
    ------
    FedpeftError
        When the system does not say.
    """
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        free = 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        try:
            free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
        except (ValueError, OSError) as error:
            raise FedpeftError("training.memory", "auto", "a number on this system", "as in '2GB'") from error
    try:
        return min(free, int(_LIMIT.read_text()) - int(_USED.read_text()))
    except (OSError, ValueError):  # no group, or "max"
        return free
