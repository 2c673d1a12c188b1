"""Which class of devices a client is of, and what the clients of a class compute with.

One process serves clients of several classes. It holds one base for each way to hold it that it has met, shared by all
clients of such classes, and never more: with a phone's and a desktop's class at most the sum of the two. A base that is
not quantized is mapped from its file, so that all processes of a machine share its pages; a quantized one is private
memory, which forked workers share as long as it was made before the fork (:meth:`Fleet.load`). A client's examples are
encoded once, by the one tokenizer, as long as its class takes them: training, validation and test alike.

What binds the classes is the base's fingerprint, taken before quantization, the adapter's schema, and its starting
values to the bit: the sum of their updates is a change of one adapter. Layers that are drawn over a bfloat16 base are
rounded to bfloat16 by peft, over any other base not. So in a federation with classes all starts are rounded so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

from fedpeft.base import Base
from fedpeft.base.placement import device_of
from fedpeft.codecs.bfloat16 import from_bfloat16, to_bfloat16
from fedpeft.data.federation import Federation
from fedpeft.device.folders import require_client
from fedpeft.errors import DataError, ScenarioError, nearest
from fedpeft.federation.fitted import fitted
from fedpeft.methods import Attached
from fedpeft.methods.attached import SHARED
from fedpeft.scenario import Scenario
from fedpeft.scenario.devices import DeviceTable, assign
from fedpeft.seeds import derive
from fedpeft.tasks import Splits, Task, open_task
from fedpeft.tasks.open import held

# Up to this many tokens attention is computed plainly.
_SHORT = 128


@dataclass(frozen=True)
class Equipment:
    """What the clients of one class compute with.

    Parameters
    ----------
    kind : DeviceTable
        The class, nothing left out.
    task : Task
        Over the base as the class holds it.
    attached : Attached
    """

    kind: DeviceTable
    task: Task[Any]
    attached: Attached

    @property
    def base(self) -> Base:
        """The base as the class holds it."""
        return self.task.base


def bonds(equipment: Equipment) -> dict[str, str]:
    """Return what must be alike for updates to add up: digests of the schema, the base and the starting values."""
    attached = equipment.attached
    return {
        "schema": attached.schemas[SHARED].digest,
        "base": equipment.base.fingerprint,
        "start": sha256(attached.initial[SHARED].tobytes()).hexdigest(),
    }


class Fleet:
    """The classes of a scenario, each loaded when the first of its clients is served.

    Parameters
    ----------
    scenario : Scenario
    own : mapping of str to str, optional
        A device's client and the class that it has chosen itself; then no other class is held, fitted or loaded.
    text : Federation, optional
        A device's own text, where the scenario leaves it to the devices.

    Attributes
    ----------
    reference : Equipment
        Of the class that is named first, or chosen, which is loaded at once: what all classes share is read from it.
    budgets : list of dict
        What was chosen for each class with a budget of memory, for the record.
    """

    def __init__(
        self, scenario: Scenario, own: Mapping[str, str] | None = None, text: Federation | None = None
    ) -> None:
        self._scenario, self._own = scenario, dict(own or {})
        if text is not None and scenario.devices and not self._own:
            known = ", ".join(kind.name for kind in scenario.devices)
            raise ScenarioError("device", "none", f"one of {known}", "say of which class this device is: `--device`")
        kinds, data = [self._chosen(name) for name in self._own.values()] or scenario.classes, scenario.data
        first = kinds[0]
        whole = first.memory is not None  # to count with; it is mapped, and held as was chosen afterwards
        task = open_task(
            scenario.task.kind,
            data.federation,
            scenario.base.name,
            str(first.dtype),
            "full" if whole else str(first.precision),
            data.window,
            data.max_windows,
            scenario.task.pooling,
            scenario.packing,
            text,
        )
        self._suit(task)
        fits = [fitted(scenario, kind, task) for kind in kinds]
        self._kinds = {kind.name: kind for kind, _ in fits}
        self.budgets = [record for _, record in fits if record is not None]
        first = self._kinds[first.name]
        if whole and first.precision != "full":
            task = held(task, str(first.dtype), str(first.precision))
        self.reference = self._equip(first, task)
        self._equipped = {first.name: self.reference}

    @cached_property
    def clients(self) -> list[str]:
        """The clients of the scenario, in the federation's order."""
        ids = list(self.reference.task.client_ids())
        if len(set(ids)) != len(ids):
            raise DataError("data.federation", self.reference.task.name, "unique client names")
        for client in ids:
            require_client(client)
        if self._scenario.enrolled:
            return ids  # this device's own name, or none on the server: how many there are is nobody's to know here
        wanted = self._scenario.data.clients or len(ids)
        if wanted > len(ids):
            raise DataError("data.clients", wanted, f"at most the federation's {len(ids)}")
        if self._scenario.federation.cohort > wanted:
            raise DataError("federation.cohort", self._scenario.federation.cohort, f"at most {wanted} clients")
        if self._scenario.asked > wanted:
            raise DataError("federation.cohort + oversample", self._scenario.asked, f"at most {wanted} clients")
        return ids[:wanted]

    @cached_property
    def classes(self) -> dict[str, str]:
        """The class of every client that the scenario uses; without a name where there is one for all."""
        if not self._scenario.devices:
            return dict.fromkeys(self.clients, "")
        if self._scenario.enrolled:
            return dict(self._own)  # there is no list to draw from: each device chooses
        return {**assign(self._scenario.classes, self.clients, self._scenario.seed), **self._own}

    def _chosen(self, name: str) -> DeviceTable:
        """Return the class that a device says it is of."""
        known = {kind.name: kind for kind in self._scenario.classes if kind.name}
        if name not in known:
            raise ScenarioError("device", name, "a class of the scenario's [[devices]]", nearest(name, known))
        return known[name]

    def describe(self) -> list[dict[str, Any]]:
        """Say of each class how it holds the base and how many clients are of it, for the record."""
        counts = Counter(self.classes.values())
        return [
            {"name": kind.name, "dtype": kind.dtype, "precision": kind.precision, "clients": counts[kind.name]}
            for kind in self._kinds.values()
        ]

    def of(self, client: str) -> Equipment:
        """Return what a client computes with, loading it when it is the first of its class."""
        return self._of_class(self.classes[client])

    def splits(self, client: str) -> Splits[Any]:
        """Read and encode a client's examples, as long as its class takes them; no base is loaded for that."""
        return self._cut(self.reference.task, self._kinds[self.classes[client]]).splits(client)

    def load(self) -> None:
        """Load what is missing, so that processes forked from now on share it."""
        for name in sorted(set(self.classes.values())):
            self._of_class(name)

    def _of_class(self, name: str) -> Equipment:
        if name not in self._equipped:
            kind = self._kinds[name]
            made = self._alike(kind)
            if made is None:
                made = self._equip(kind, held(self.reference.task, str(kind.dtype), str(kind.precision)))
                self._require_alike(made)
            self._equipped[name] = made
        return self._equipped[name]

    def _alike(self, kind: DeviceTable) -> Equipment | None:
        """Return what a class that holds the base alike is equipped with, the examples cut for this one."""
        for other in self._equipped.values():
            if (other.kind.dtype, other.kind.precision) == (kind.dtype, kind.precision):
                return Equipment(kind, self._cut(other.task, kind), other.attached)
        return None

    def _equip(self, kind: DeviceTable, task: Task[Any]) -> Equipment:
        scenario, place = self._scenario, device_of(self._scenario.base.device)
        self._suit(task)
        task = self._cut(task, kind)
        method, private = scenario.shared_method.over(str(kind.precision)), scenario.private_method
        own = None if private is None else private.over(str(kind.precision))
        attached = Attached(task.base, method, own, derive(scenario.seed, "initial adapter"), place)
        if scenario.devices:
            attached.initial = {slot: from_bfloat16(to_bfloat16(v)) for slot, v in attached.initial.items()}
        return Equipment(kind, task, attached)

    def _cut(self, task: Task[Any], kind: DeviceTable) -> Task[Any]:
        return task.cut(kind.window or self._scenario.data.window)

    def _suit(self, task: Task[Any]) -> None:
        """Choose how attention is computed."""
        scenario = self._scenario
        place = device_of(scenario.base.device)
        if place.type == "cpu" and scenario.data.window <= _SHORT and scenario.task.kind != "caption":
            # On a CPU the fused kernels' backward pass costs more than it saves: a step takes 15 % longer with them.
            task.base.model.set_attn_implementation("eager")

    def _require_alike(self, made: Equipment) -> None:
        """Refuse a class whose clients' updates could not be added to the others'."""
        here, there = bonds(made), bonds(self.reference)
        found = next((part for part in there if here[part] != there[part]), None)
        if found is not None:
            method, other = self._scenario.shared_method.name, self.reference.kind.name
            raise ScenarioError(
                f"devices[{made.kind.name}]",
                f"another {found} than that of {other}",
                "adapters that add up",
                f"{method} reads the base's own numbers: give all classes one dtype and precision",
            )
