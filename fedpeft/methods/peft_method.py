"""Methods that peft implements: its layers do the work, its names and files stay as they are."""

from __future__ import annotations

from abc import abstractmethod
from enum import Enum
from typing import Any, cast

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from fedpeft.methods.attachment import Attachment, probe
from fedpeft.methods.layout import LINEAR, features
from fedpeft.methods.method import Method

_WRAPPER = "_fedpeft_peft_model"


class PeftMethod(Method):
    """A method whose trainables peft injects into the model's layers."""

    @abstractmethod
    def peft_config(self, model: PreTrainedModel) -> PeftConfig:
        """Return the configuration that peft builds the trainables of this model from."""

    def attach(self, model: PreTrainedModel, slot: str) -> Attachment:
        """Inject the layers under the slot's name."""
        return PeftAttachment(model, self.peft_config(model), slot)


class PeftAttachment(Attachment):
    """Layers injected by peft, under the adapter name ``slot``.

    Parameters
    ----------
    model : PreTrainedModel
        It may hold another slot of the same kind already.
    config : PeftConfig
    slot : str
    """

    def __init__(self, model: PreTrainedModel, config: PeftConfig, slot: str) -> None:
        known = {id(t) for t in [*model.parameters(), *model.buffers()]}
        wrapped = model.__dict__.get(_WRAPPER)
        if wrapped is None:
            wrapped = get_peft_model(model, config, adapter_name=slot)
            # Not a submodule: the model would contain itself.
            model.__dict__[_WRAPPER] = wrapped
            wrapped.__dict__["active"] = []
        else:
            known |= {id(t) for t in [*wrapped.parameters(), *wrapped.buffers()]}
            wrapped.add_adapter(slot, config)
        self._wrapped, self._slot = cast(PeftModel, wrapped), slot
        self.tuner = cast(BaseTuner, self._wrapped.base_model)
        # peft marks what an adapter trains when it is made active.
        self.tuner.set_adapter(slot)
        added = {n: p for n, p in self._wrapped.named_parameters() if id(p) not in known}
        trainables: dict[str, nn.Parameter] = {}
        for name, parameter in added.items():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
                trainables[_without(name, slot)] = parameter
        context = {n: b for n, b in self._wrapped.named_buffers() if id(b) not in known and b.is_floating_point()}
        context |= {n: p for n, p in added.items() if not p.requires_grad and p.is_floating_point()}
        saved = plain(self._wrapped.peft_config[slot])
        super().__init__(trainables, saved, {_without(n, slot): t for n, t in context.items()})

    def enable(self, on: bool) -> None:
        """Add the slot to the active ones, or take it out."""
        self._set(self._slot, on)

    @torch.no_grad()
    def changes(self) -> dict[str, Tensor]:
        """Return what the slot adds to the output of each layer that peft has wrapped."""
        before = list(self._wrapped.__dict__["active"])
        layers = {n: m for n, m in self._wrapped.named_modules() if isinstance(m, BaseTunerLayer)}
        found = {}
        for name, layer in layers.items():
            base = layer.get_base_layer()
            if not isinstance(base, LINEAR):
                continue
            run = cast(nn.Module, layer)
            x = probe(features(base)[0]).to(base.weight.dtype)
            for other in before:
                self._set(other, False)
            off = run(x).float()
            self._set(self._slot, True)
            found[name] = run(x).float() - off
            self._set(self._slot, False)
        for other in before:
            self._set(other, True)
        return found

    def _set(self, slot: str, on: bool) -> None:
        active: list[str] = self._wrapped.__dict__["active"]
        active[:] = [s for s in active if s != slot] + [slot] * on
        if not active:
            self.tuner.disable_adapter_layers()
            return
        self.tuner.enable_adapter_layers()
        self.tuner.set_adapter(active[0] if len(active) == 1 else list(active))


def plain(config: PeftConfig) -> dict[str, Any]:
    """Return a peft configuration as JSON values, sets sorted."""

    def value(entry: Any) -> Any:
        if isinstance(entry, Enum):
            return entry.value
        return sorted(entry) if isinstance(entry, set) else entry

    return {key: value(entry) for key, entry in config.to_dict().items()}


def _without(name: str, slot: str) -> str:
    """Name a tensor as peft's saved files do, without the adapter's name."""
    return ".".join(name.rsplit(f".{slot}.", 1)).removesuffix(f".{slot}")
