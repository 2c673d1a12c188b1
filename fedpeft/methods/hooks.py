"""The one mechanism of all methods that peft does not have: trainable modules hung onto a model by forward hooks.

===========  ===============================================  =====================================
form         what the model's module then gives               used for
===========  ===============================================  =====================================
``serial``   ``y + m(y)``                                     bottleneck adapters after a block
``parallel`` ``y + m(x)``, x the input of the place           low-rank, sparse, parallel adapters
``replace``  ``m(y)``                                         scales
``before``   ``f(x + m(x))``, f the place itself              prefixes, between attention and output
===========  ===============================================  =====================================

A tap lets a ``parallel`` or ``before`` module read elsewhere, earlier in the same pass. The base is never changed:
without its hooks it is what it was. Modules compute in float32 over a base of any precision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fedpeft.methods.attachment import Attachment, probe

Form = Literal["serial", "parallel", "replace", "before"]


@dataclass(frozen=True)
class Placed:
    """A trainable module and its place.

    Parameters
    ----------
    name : str
        Prefix of its tensors' names, such as ``layers.0.attention``; different for every place.
    module : nn.Module
        Maps a float32 tensor to a float32 tensor. One module may stand in several places: it is then shared, and
        its tensors count once.
    at : nn.Module
        The model's module whose output or input is changed.
    form : {"serial", "parallel", "replace", "before"}
    width : int
        Of what the module reads.
    tap : nn.Module, optional
        Where a parallel module, or one before a place, reads; ``at`` itself when not given.
    tap_side : {"input", "output"}
        Which side of the tap is read.
    """

    name: str
    module: nn.Module
    at: nn.Module
    form: Form
    width: int
    tap: nn.Module | None = None
    tap_side: Literal["input", "output"] = "input"


class Hooked(Attachment):
    """Modules hung onto a model.

    Their trainable parameters are the method's; their buffers and frozen parameters are its context.

    Parameters
    ----------
    placed : sequence of Placed
    config : mapping
        For ``adapter_config.json``.
    extra : mapping of str to nn.Module, optional
        Modules that the placed ones share, such as Compacter's, under the names that their tensors get.
    penalty : callable, optional
        Returns what is added to the loss, or None.
    context : mapping of str to Tensor, optional
        Frozen tensors besides the modules' own.
    after_step : callable, optional
        Hears of every optimizer step, while the gradients are there.
    fold : callable, optional
        Returns tensors and configuration for use, where they are simpler than the trainables.
    """

    def __init__(
        self,
        placed: Sequence[Placed],
        config: Mapping[str, Any],
        extra: Mapping[str, nn.Module] | None = None,
        penalty: Callable[[], Tensor | None] | None = None,
        context: Mapping[str, Tensor] | None = None,
        after_step: Callable[[int, int], None] | None = None,
        fold: Callable[[], tuple[dict[str, Tensor], Mapping[str, Any]]] | None = None,
    ) -> None:
        trained: dict[str, nn.Parameter] = {}
        frozen: dict[str, Tensor] = {}
        seen: set[int] = set()
        # Shared modules first: they name what they share.
        for owner, module in [*(extra or {}).items(), *((p.name, p.module) for p in placed)]:
            for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
                if id(tensor) in seen:
                    continue
                seen.add(id(tensor))
                if isinstance(tensor, nn.Parameter) and tensor.requires_grad:
                    trained[f"{owner}.{name}"] = tensor
                else:
                    frozen[f"{owner}.{name}"] = tensor
        super().__init__(trained, config, {**frozen, **(context or {})})
        self._on, self._placed, self._extra = False, list(placed), list((extra or {}).values())
        self._penalty, self._after_step, self._fold = penalty, after_step, fold
        self._read: dict[int, Tensor] = {}
        for number, one in enumerate(placed):
            self._hang(number, one)

    def enable(self, on: bool) -> None:
        """Let the hooks act, or not."""
        self._on = on

    def place(self, device: torch.device) -> None:
        """Move the modules, which no model contains."""
        for module in [*self._extra, *(one.module for one in self._placed)]:
            module.to(device)

    @torch.no_grad()
    def changes(self) -> dict[str, Tensor]:
        """Return what each module adds, read from its own place's width."""
        found, device = {}, next(iter(self.stored().values())).device
        for one in self._placed:
            x = probe(one.width, device)
            y = in_float32(one.module, x)
            found[one.name] = y - x if one.form == "replace" else y
        return found

    def penalty(self) -> Tensor | None:
        """Return what the method adds to the loss."""
        return self._penalty() if self._penalty and self._on else None

    def after_step(self, step: int, total: int) -> None:
        """Tell the method."""
        if self._after_step and self._on:
            self._after_step(step, total)

    def folded(self) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
        """Return what the trainables amount to."""
        return self._fold() if self._fold else super().folded()

    def _hang(self, number: int, one: Placed) -> None:
        elsewhere = one.tap is not None and (one.tap is not one.at or one.tap_side == "output")

        def remember(_: nn.Module, args: tuple[Tensor, ...], out: Tensor | None = None) -> None:
            if self._on:
                self._read[number] = args[0] if out is None else out

        def after(_: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
            if not self._on:
                return None
            if one.form == "replace":
                return in_float32(one.module, out).to(out.dtype)
            read = out if one.form == "serial" else self._read.pop(number) if elsewhere else args[0]
            return out + in_float32(one.module, read).to(out.dtype)

        def before(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            if not self._on:
                return None
            read = self._read.pop(number) if elsewhere else args[0]
            return args[0] + in_float32(one.module, read).to(args[0].dtype), *args[1:]

        if elsewhere and one.tap is not None:
            if one.tap_side == "output":
                one.tap.register_forward_hook(remember)
            else:
                one.tap.register_forward_pre_hook(remember)
        if one.form == "before":
            one.at.register_forward_pre_hook(before)
        else:
            one.at.register_forward_hook(after)


def in_float32(module: nn.Module, value: Tensor) -> Tensor:
    """Apply a float32 module to a tensor of any precision."""
    kind = value.device.type
    # Where steps are counted on shapes alone nothing is cast: the ``meta`` device cannot.
    castable = torch.amp.is_autocast_available(kind)
    with torch.autocast(kind, enabled=False) if castable else nullcontext():
        result: Tensor = module(value.float())
    return result
