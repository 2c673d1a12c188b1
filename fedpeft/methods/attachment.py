"""What a method leaves on a model: trainables that can be switched off, and nothing of the base changed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

OWN_TYPE = "FEDPEFT"
"""The ``peft_type`` in the configuration of methods that peft does not know."""


class Attachment(ABC):
    """One method's trainables on one model.

    Parameters
    ----------
    parameters : dict of str to nn.Parameter
        The trainables by name, all float32. Names do not hold the slot, so that adapters can change places.
    config : mapping
        What ``adapter_config.json`` says; peft's own where peft knows the method.
    context : dict of str to Tensor
        Frozen tensors that the trainables only make sense with, such as seeded projections. They are not sent:
        every client makes them from the seed, and their hash is part of the schema.
    """

    head_prefix: ClassVar[str] = "base_model.model."
    """What peft's files put before the names of the model's own tensors, such as a head's."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        config: Mapping[str, Any],
        context: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.parameters, self.config, self.context = dict(parameters), dict(config), dict(context or {})

    @abstractmethod
    def enable(self, on: bool) -> None:
        """Let the trainables change the model's output, or not."""

    def place(self, device: torch.device) -> None:  # noqa: B027 - what lies in the model has moved with it
        """Move what does not lie in the model itself to a device; parameters stay the objects they are."""

    def stored(self) -> Mapping[str, Tensor]:
        """Return the tensors to read from and write to, whether the trainables are switched on or not."""
        return self.parameters

    def folded(self) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
        """Return tensors and configuration for use: what the trainables amount to, where that is simpler than they."""
        return {name: t.detach() for name, t in self.stored().items()}, self.config

    @abstractmethod
    def changes(self) -> dict[str, Tensor]:
        """Return what the trainables now add to the output of each place they change, on a fixed random input.

        A method is linear when the change of mean parameters is the mean of the changes; this is what measures it.
        """

    def penalty(self) -> Tensor | None:
        """Return what the method adds to the loss, a scalar, or None."""
        return None

    def after_step(self, step: int, total: int) -> None:  # noqa: B027 - most methods have nothing to do
        """Hear that the optimizer has taken a step, counted from 1; gradients are still there."""


class Joined(Attachment):
    """Several attachments that are switched together: a hybrid method's parts, or a method and a task's head.

    Parameters
    ----------
    parts : sequence of (str, Attachment)
        With the prefix that their tensors' names get; an empty one leaves them as they are.
    config : mapping
    """

    def __init__(self, parts: Sequence[tuple[str, Attachment]], config: Mapping[str, Any]) -> None:
        self._named, self._parts = list(parts), [part for _, part in parts]
        super().__init__(
            {prefix + name: p for prefix, part in parts for name, p in part.parameters.items()},
            config,
            {prefix + name: t for prefix, part in parts for name, t in part.context.items()},
        )

    def place(self, device: torch.device) -> None:
        """Move all parts."""
        for part in self._parts:
            part.place(device)

    def stored(self) -> Mapping[str, Tensor]:
        """Return all parts' tensors."""
        return {prefix + name: t for prefix, part in self._named for name, t in part.stored().items()}

    def folded(self) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
        """Return a method with its head folded; a hybrid, whose parts have names of their own, stays what it is."""
        if any(prefix for prefix, _ in self._named):
            return super().folded()
        method, *rest = (part.folded() for part in self._parts)
        tensors, config = dict(method[0]), dict(method[1])
        for found, _ in rest:
            tensors |= found
        if "modules_to_save" in self.config:
            config["modules_to_save"] = self.config["modules_to_save"]
        return tensors, config

    def enable(self, on: bool) -> None:
        """Switch all parts."""
        for part in self._parts:
            part.enable(on)

    def changes(self) -> dict[str, Tensor]:
        """Return all parts' changes."""
        return {prefix + name: t for prefix, part in self._named for name, t in part.changes().items()}

    def penalty(self) -> Tensor | None:
        """Return the sum of the parts' penalties."""
        penalties = [p for part in self._parts if (p := part.penalty()) is not None]
        return sum(penalties[1:], penalties[0]) if penalties else None

    def after_step(self, step: int, total: int) -> None:
        """Tell all parts."""
        for part in self._parts:
            part.after_step(step, total)


def probe(width: int, device: torch.device) -> Tensor:
    """Return the fixed input on which changes are measured, the same on every device; float32, (1, 8, width)."""
    return torch.randn(1, 8, width, generator=torch.Generator().manual_seed(0)).to(device)


def digest(context: Mapping[str, Tensor]) -> str:
    """Return the sha256 of frozen tensors by name, shape and float32 bytes; empty when there are none."""
    if not context:
        return ""
    hashed = sha256()
    for name in sorted(context):
        values = np.ascontiguousarray(context[name].detach().float().cpu().numpy())
        hashed.update(f"{name}{values.shape}".encode() + values.tobytes())
    return hashed.hexdigest()
