"""The one mechanism of all methods that peft does not have: trainable modules hung onto a model by forward hooks.

===========  ===============================================  =====================================
form         what the model's module then gives               used for
===========  ===============================================  =====================================
``serial``   ``y + m(y)``                                     bottleneck adapters after a block
``parallel`` ``y + m(x)``, x the input of the place           low-rank, sparse, parallel adapters
``replace``  ``m(y)``                                         scales, fusion
===========  ===============================================  =====================================

The base is never changed: without its hooks it is what it was. Modules compute in float32 over a base of any precision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fedpeft.methods.attachment import Attachment, probe

Form = Literal["serial", "parallel", "replace"]


@dataclass(frozen=True)
class Placed:
    """A trainable module and its place.

    Parameters
    ----------
    name : str
        Prefix of its tensors' names, such as ``layers.0.attention``.
    module : nn.Module
        Maps a float32 tensor to a float32 tensor. One module may stand in several places: it is then shared.
    at : nn.Module
        The model's module whose output is changed.
    form : {"serial", "parallel", "replace"}
    width : int
        Of what the module reads.
    tap : nn.Module, optional
        Whose input a parallel module reads; ``at`` itself when not given.
    """

    name: str
    module: nn.Module
    at: nn.Module
    form: Form
    width: int
    tap: nn.Module | None = None


class Hooked(Attachment):
    """Modules hung onto a model.

    Parameters
    ----------
    placed : sequence of Placed
    config : mapping
        For ``adapter_config.json``.
    extra : mapping of str to nn.Module, optional
        Modules that the placed ones share, such as Compacter's; their tensors belong to the method too.
    penalty : callable, optional
        Returns what is added to the loss.
    context : mapping of str to Tensor, optional
    """

    def __init__(
        self,
        placed: Sequence[Placed],
        config: Mapping[str, Any],
        extra: Mapping[str, nn.Module] | None = None,
        penalty: Callable[[], Tensor] | None = None,
        context: Mapping[str, Tensor] | None = None,
    ) -> None:
        owners = {**{p.name: p.module for p in placed}, **(extra or {})}
        parameters: dict[str, nn.Parameter] = {}
        seen: set[int] = set()
        for owner, module in owners.items():
            for name, parameter in module.named_parameters():
                if id(parameter) not in seen and parameter.requires_grad:
                    seen.add(id(parameter))
                    parameters[f"{owner}.{name}"] = parameter
        buffers = {f"{o}.{n}": b for o, m in owners.items() for n, b in m.named_buffers()}
        super().__init__(parameters, config, {**buffers, **(context or {})})
        self._on, self._placed = False, list(placed)
        self._penalty = penalty
        self._inputs: dict[int, Tensor] = {}
        for one in placed:
            if one.tap is not None and one.tap is not one.at:
                one.tap.register_forward_pre_hook(self._remember(one.tap))
            one.at.register_forward_hook(self._hook(one))

    def enable(self, on: bool) -> None:
        """Let the hooks act, or not."""
        self._on = on

    @torch.no_grad()
    def changes(self) -> dict[str, Tensor]:
        """Return what each module adds, read from its own place's width."""
        found = {}
        for one in self._placed:
            x = probe(one.width)
            y = in_float32(one.module, x)
            found[one.name] = y - x if one.form == "replace" else y
        return found

    def penalty(self) -> Tensor | None:
        """Return what the method adds to the loss."""
        return self._penalty() if self._penalty and self._on else None

    def _remember(self, tap: nn.Module) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            if self._on:
                self._inputs[id(tap)] = args[0]

        return hook

    def _hook(self, one: Placed) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]:
        tap = one.tap if one.tap is not None and one.tap is not one.at else None

        def hook(_: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
            if not self._on:
                return None
            if one.form == "replace":
                return in_float32(one.module, out).to(out.dtype)
            read = out if one.form == "serial" else self._inputs.pop(id(tap)) if tap is not None else args[0]
            return out + in_float32(one.module, read).to(out.dtype)

        return hook


def in_float32(module: nn.Module, value: Tensor) -> Tensor:
    """Apply a float32 module to a tensor of any precision."""
    with torch.autocast(value.device.type, enabled=False):
        result: Tensor = module(value.float())
    return result
