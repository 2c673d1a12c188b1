"""Methods that peft implements: its layers do the work, its names and files stay as they are."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from enum import Enum
from typing import Any, cast

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from fedpeft.base.placement import place
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
    keep : callable, optional
        Which of peft's trainables are trained, by name; the others stay what they are and are part of the context.
    """

    def __init__(
        self, model: PreTrainedModel, config: PeftConfig, slot: str, keep: Callable[[str], bool] = lambda _: True
    ) -> None:
        self._dtype = model.dtype
        known = {id(t) for t in [*model.parameters(), *model.buffers()]}
        wrapped = model.__dict__.get(_WRAPPER)
        if wrapped is None:
            wrapped = get_peft_model(model, config, adapter_name=slot)
            # Not a submodule: the model would contain itself.
            model.__dict__[_WRAPPER] = wrapped
            wrapped.__dict__["active"] = [slot]
        else:
            known |= {id(t) for t in [*wrapped.parameters(), *wrapped.buffers()]}
            wrapped.add_adapter(slot, config)
        self._wrapped, self._slot = cast(PeftModel, wrapped), slot
        self.tuner = cast(BaseTuner, self._wrapped.base_model)
        # peft marks what an adapter trains when it is made active.
        self._set(slot, True)
        self.tuner.set_adapter(slot)
        added = {_without(n, slot): p for n, p in self._wrapped.named_parameters() if id(p) not in known}
        trainables = {n: p for n, p in added.items() if p.requires_grad and keep(n)}
        for parameter in trainables.values():
            parameter.data = parameter.data.float()
        buffers = {_without(n, slot): b for n, b in self._wrapped.named_buffers() if id(b) not in known}
        context = {n: t for n, t in {**buffers, **added}.items() if n not in trainables and t.is_floating_point()}
        super().__init__(trainables, plain(self._wrapped.peft_config[slot]), context)
        if self._dtype != torch.float32:
            for layer in self._layers().values():
                # A norm answers in the precision of its weights; the layers after it expect the base's.
                if is_norm(layer.get_base_layer()):
                    cast(nn.Module, layer).register_forward_hook(lambda _, inputs, out: out.to(inputs[0].dtype))

    def place(self, device: torch.device) -> None:
        """Move what peft keeps beside the layers, such as projections that they share."""
        place(self._wrapped, device)

    def enable(self, on: bool) -> None:
        """Add the slot to the active ones, or take it out."""
        self._set(self._slot, on)

    @torch.no_grad()
    def changes(self) -> dict[str, Tensor]:
        """Return what the slot adds to the output of each layer that peft has wrapped."""
        before = list(self._active)
        for other in before:
            self._set(other, False)
        found, device = {}, next(iter(self.parameters.values())).device
        for name, layer in self._layers().items():
            x = _probe(layer.get_base_layer(), self._dtype, device)
            if x is None:
                continue
            run = cast(nn.Module, layer)
            off = run(x).float()
            self._set(self._slot, True)
            found[name] = run(x).float() - off
            self._set(self._slot, False)
        for other in before:
            self._set(other, True)
        return found

    @property
    def _active(self) -> list[str]:
        """The slots that change the output, shared by all attachments on one model."""
        return cast("list[str]", self._wrapped.__dict__["active"])

    def _layers(self) -> dict[str, BaseTunerLayer]:
        return {n: m for n, m in self._wrapped.named_modules() if isinstance(m, BaseTunerLayer)}

    def _set(self, slot: str, on: bool) -> None:
        active, were = self._active, bool(self._active)
        active[:] = [s for s in active if s != slot] + [slot] * on
        # Only on a change: some of peft's methods exchange modules here, and cannot do so twice.
        if not active and were:
            self.tuner.disable_adapter_layers()
        if active and not were:
            self.tuner.enable_adapter_layers()
        if active:
            self.tuner.set_adapter(active[0] if len(active) == 1 else list(active))


def configurations(model: PreTrainedModel) -> list[PeftConfig]:
    """Return the configurations of what peft has injected into a model, in the order of injection."""
    wrapped = model.__dict__.get(_WRAPPER)
    return list(wrapped.peft_config.values()) if wrapped is not None else []


def is_norm(base: nn.Module) -> bool:
    """Say whether a module is a normalization: its weight is a vector."""
    weight = getattr(base, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim == 1


def _probe(base: nn.Module, dtype: torch.dtype, device: torch.device) -> Tensor | None:
    """Return the fixed input of a layer, or None when its kind is not known."""
    if isinstance(base, LINEAR):
        return probe(features(base)[0], device).to(dtype)
    if isinstance(base, nn.Embedding):
        return torch.arange(base.num_embeddings, device=device)[None]
    if is_norm(base):
        return probe(len(cast(Tensor, base.weight)), device).to(dtype)
    return None


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
