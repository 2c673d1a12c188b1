"""A base with a method attached: trainable parameters that read and write as flat vectors.

Two slots lie over the frozen base. ``SHARED`` holds the federation's adapter, ``PRIVATE`` a person's own on top
of it; both are active together or alone, and the base below is one object however many people it serves.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import cast

import numpy as np
import torch
from peft import PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTuner
from torch import nn

from fedpeft.adapters import Adapter, Schema
from fedpeft.adapters.schema import Vector
from fedpeft.base.base import Base
from fedpeft.errors import ScenarioError, nearest
from fedpeft.methods.method import Method

SHARED, PRIVATE = "shared", "private"


class Attached:
    """A model whose adapters can be exchanged.

    Parameters
    ----------
    base : Base
        Its model object is wrapped and must not be wrapped twice.
    method : Method
        Of the shared adapter.
    private : Method
        Of the private one; usually the same with a smaller rank.
    seed : int
        Decides the starting values, the same on every client.
    """

    def __init__(self, base: Base, method: Method, private: Method, seed: int) -> None:
        self.base = base
        self._methods = {SHARED: method, PRIVATE: private}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for chosen in (method, private):
                _check_targets(base, chosen)
            self.model: PeftModel = get_peft_model(base.model, method.peft_config(), adapter_name=SHARED)
            self.model.add_adapter(PRIVATE, private.peft_config())
        self._parameters = {slot: self._collect(slot) for slot in self._methods}
        self.schemas = {
            slot: Schema.of({name: tuple(p.shape) for name, p in parameters.items()})
            for slot, parameters in self._parameters.items()
        }
        self.initial = {slot: self.read(slot) for slot in self._methods}
        self.activate(SHARED)

    def parameters(self, slot: str, keep: Callable[[str], bool] = lambda _: True) -> list[nn.Parameter]:
        """Make the named tensors of one slot trainable, everything else frozen, and return them."""
        chosen = []
        for owner, parameters in self._parameters.items():
            for name, parameter in parameters.items():
                parameter.requires_grad_(owner == slot and keep(name))
                if parameter.requires_grad:
                    chosen.append(parameter)
        return chosen

    def activate(self, *slots: str) -> None:
        """Let these slots change the base's output; none means the bare base."""
        tuner = cast(BaseTuner, self.model.base_model)
        if not slots:
            tuner.disable_adapter_layers()
            return
        tuner.enable_adapter_layers()
        tuner.set_adapter(list(slots))

    def read(self, slot: str) -> Vector:
        """Return a slot's parameters as a new vector of shape (schema.size,)."""
        parameters = self._parameters[slot]
        return self.schemas[slot].flatten({n: p.detach().numpy() for n, p in parameters.items()})

    @torch.no_grad()
    def write(self, slot: str, vector: Vector) -> None:
        """Set a slot's parameters."""
        for name, tensor in self.schemas[slot].unflatten(vector).items():
            self._parameters[slot][name].copy_(torch.from_numpy(np.ascontiguousarray(tensor)))

    def adapter(self, slot: str, vector: Vector) -> Adapter:
        """Make an adapter, ready to be saved or exported, from a slot's parameters."""
        config = self._methods[slot].peft_config().to_dict()
        config["base_model_name_or_path"] = self.base.name
        config["target_modules"] = sorted(getattr(self.model.peft_config[slot], "target_modules", ()))
        plain = {key: v.value if isinstance(v, Enum) else v for key, v in config.items()}
        return Adapter(self.schemas[slot], vector, plain, self.base.fingerprint)

    def _collect(self, slot: str) -> dict[str, nn.Parameter]:
        """Name a slot's parameters as peft's saved files do, without the slot's name."""
        return {
            ".".join(name.rsplit(f".{slot}.", 1)): parameter
            for name, parameter in self.model.named_parameters()
            if f".{slot}." in name
        }


def _check_targets(base: Base, method: Method) -> None:
    """Refuse modules that the base does not have, which peft would leave out, or that are not linear."""
    targets = getattr(method, "targets", "all-linear")
    if targets == "all-linear":
        return
    linear = [f".{n}" for n, m in base.model.named_modules() if isinstance(m, nn.Linear)]
    unknown = [target for target in targets if not any(name.endswith(f".{target}") for name in linear)]
    if unknown or not targets:
        value = unknown[0] if unknown else targets
        raise ScenarioError(
            "method.targets",
            value,
            "names of linear modules",
            nearest(str(value), {name.rsplit(".", 1)[-1] for name in linear}),
        )
