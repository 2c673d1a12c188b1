"""A base with a method attached: trainable parameters that read and write as flat vectors.

Two slots lie over the frozen base. ``SHARED`` holds the federation's adapter, with the task's head if it has one;
``PRIVATE`` a person's own on top of it, where the method stacks. The base below is one object however many people
it serves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from fedpeft.adapters import Adapter, Schema
from fedpeft.adapters.schema import Vector
from fedpeft.base.base import Base
from fedpeft.base.placement import place, seeded
from fedpeft.errors import ScenarioError
from fedpeft.methods.attachment import Attachment, Joined, digest
from fedpeft.methods.method import CAUSAL, CLASSIFICATION, Method
from fedpeft.methods.own_parameters import OwnParameters

SHARED, PRIVATE = "shared", "private"
_CPU = torch.device("cpu")


class Attached:
    """A model whose adapters can be exchanged.

    Parameters
    ----------
    base : Base
        Its model object is changed and must not be attached to twice.
    method : Method
        Of the shared adapter.
    private : Method or None
        Of a private adapter on top; see :meth:`Method.private`.
    seed : int
        Decides the starting values, the same on every client.
    device : torch.device
        Where the model computes from then on. Starting values are drawn, and the base read, on the processor.

    Raises
    ------
    ScenarioError
        When the method does not fit the base or its task.
    AdapterError
        When the method stands on an adapter of another base.
    """

    def __init__(
        self, base: Base, method: Method, private: Method | None, seed: int, device: torch.device = _CPU
    ) -> None:
        self.base = base
        self.model: PreTrainedModel = base.model
        self.methods = {SHARED: method} if private is None else {SHARED: method, PRIVATE: private}
        head = list(base.head)
        self.task = CAUSAL if base.labels is None else CLASSIFICATION
        if self.task not in method.tasks:
            known = ", ".join(sorted(method.tasks))
            raise ScenarioError("method.name", method.name, f"a method for {self.task} models", f"it is for {known}")
        for folder in method.foundations():
            Adapter.load(folder, base.fingerprint)
        for module in self.model.modules():
            # A frozen base that drops at random would give every engine other numbers.
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            if isinstance(getattr(module, "attention_dropout", None), float):
                module.attention_dropout = 0.0  # type: ignore[assignment]  # Llama's kin keep a number
        with seeded(seed):
            self._slots = {slot: chosen.attach(self.model, slot) for slot, chosen in self.methods.items()}
        if head and method.name != "full":
            self._slots[SHARED] = _with_head(self._slots[SHARED], self.model, head)
        self.schemas = {
            slot: Schema.of({n: tuple(p.shape) for n, p in own.parameters.items()}, digest(own.context))
            for slot, own in self._slots.items()
        }
        self.head = frozenset(id(self.model.get_parameter(name)) for name in head)
        self.initial = {slot: self.read(slot) for slot in self._slots}
        if device != _CPU:
            place(self.model, device)
            for own in self._slots.values():
                own.place(device)
        self.model.eval()
        self.activate(SHARED)

    @property
    def slots(self) -> list[str]:
        """The slots there are, the shared one first."""
        return list(self._slots)

    def trainables(self, slot: str) -> Mapping[str, nn.Parameter]:
        """Return what one slot can train, by name."""
        return self._slots[slot].parameters

    def parameters(self, slot: str, keep: Callable[[str], bool] = lambda _: True) -> list[nn.Parameter]:
        """Make the named tensors of one slot trainable, everything else frozen, and return them."""
        self.model.requires_grad_(False)
        chosen = []
        for owner, own in self._slots.items():
            for name, parameter in own.parameters.items():
                parameter.requires_grad_(owner == slot and keep(name))
                if parameter.requires_grad:
                    chosen.append(parameter)
        return chosen

    def activate(self, *slots: str) -> None:
        """Let these slots change the base's output; none means the bare base."""
        self.active = slots
        # peft makes trainable what it switches on; that is decided by `parameters` alone.
        trained = {p: p.requires_grad for own in self._slots.values() for p in own.parameters.values()}
        for own in self._slots.values():
            own.enable(False)
        for slot in slots:
            self._slots[slot].enable(True)
        for parameter, wanted in trained.items():
            parameter.requires_grad_(wanted)

    def penalty(self, slot: str) -> Tensor | None:
        """Return what the slot's method adds to the loss, or None."""
        return self._slots[slot].penalty()

    def after_step(self, slot: str, step: int, total: int) -> None:
        """Tell the slot's method that the optimizer has taken a step, counted from 1."""
        self._slots[slot].after_step(step, total)

    def read(self, slot: str) -> Vector:
        """Return a slot's parameters as a new vector of shape (schema.size,)."""
        stored = self._slots[slot].stored()
        return self.schemas[slot].flatten({n: p.detach().cpu().numpy() for n, p in stored.items()})

    @torch.no_grad()
    def write(self, slot: str, vector: Vector) -> None:
        """Set a slot's parameters."""
        stored = self._slots[slot].stored()
        for name, tensor in self.schemas[slot].unflatten(vector).items():
            stored[name].copy_(torch.from_numpy(np.ascontiguousarray(tensor)))

    def share(self, slot: str, start: Vector, trained: Vector, share: float) -> Vector:
        """Return the parameters that make ``share`` of the change that training made to a slot."""
        return self.methods[slot].share(self.schemas[slot], start, trained, share)

    def changes(self, slot: str) -> dict[str, Tensor]:
        """Return what a slot does to each place on a fixed input; see :meth:`Attachment.changes`."""
        return self._slots[slot].changes()

    def adapter(self, slot: str, vector: Vector) -> Adapter:
        """Make an adapter, ready to be saved or exported, from a slot's parameters."""
        return Adapter(self.schemas[slot], vector, self.config(slot), self.base.fingerprint)

    def folded(self, slot: str) -> Adapter:
        """Return what a slot holds as the adapter it amounts to: a reparameterised prompt as the prompt itself.

        peft opens it where the method's own file is closed to it; it can be used, but not trained further.
        """
        tensors, config = self._slots[slot].folded()
        schema = Schema.of({name: tuple(t.shape) for name, t in tensors.items()})
        vector = schema.flatten({name: t.float().cpu().numpy() for name, t in tensors.items()})
        return Adapter(schema, vector, self._described(config), self.base.fingerprint)

    def config(self, slot: str) -> dict[str, Any]:
        """Return what ``adapter_config.json`` says of a slot's adapters."""
        return self._described(self._slots[slot].config)

    def _described(self, config: Mapping[str, Any]) -> dict[str, Any]:
        encoder = "SEQ_CLS" if self.base.labels else "FEATURE_EXTRACTION"
        task = {CAUSAL: "CAUSAL_LM", CLASSIFICATION: encoder}[self.task]
        return {**config, "base_model_name_or_path": self.base.name, "task_type": task}


def _with_head(own: Attachment, model: PreTrainedModel, head: list[str]) -> Attachment:
    modules = sorted({name.split(".", 1)[0] for name in head})
    config = {**own.config, "modules_to_save": modules}
    return Joined([("", own), ("", OwnParameters(model, head, config, own.head_prefix))], config)
