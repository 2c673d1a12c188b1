"""A model's own tensors as trainables: a task's head, or everything in full fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fedpeft.errors import ScenarioError
from fedpeft.methods.attachment import Attachment


class OwnParameters(Attachment):
    """Tensors of the model itself, trained in place; switched off, they are what they were.

    Parameters
    ----------
    model : nn.Module
    names : sequence of str
        Parameters of ``model``; all must be float32.
    config : mapping
    prefix : str
        Before their names, as in the files of the method that they go with.

    Raises
    ------
    ScenarioError
        When a tensor has another precision: small steps would be rounded away.
    """

    def __init__(
        self,
        model: nn.Module,
        names: list[str],
        config: Mapping[str, Any],
        prefix: str = Attachment.head_prefix,
    ) -> None:
        found = dict(model.named_parameters())
        for name in names:
            if found[name].dtype != torch.float32:
                raise ScenarioError(
                    "base.dtype", str(found[name].dtype).removeprefix("torch."), "float32", f"{name} is to be trained"
                )
        super().__init__({f"{prefix}{name}": found[name] for name in names}, config)
        self._original = {name: p.detach().clone() for name, p in self.parameters.items()}
        self._trained: dict[str, Tensor] = {}

    def enable(self, on: bool) -> None:
        """Put the trained values in place, or the original ones."""
        if on and self._trained:
            self._put(self._trained)
            self._trained = {}
        elif not on and not self._trained:
            self._trained = {name: p.detach().clone() for name, p in self.parameters.items()}
            self._put(self._original)

    def stored(self) -> Mapping[str, Tensor]:
        """Return the trained values, wherever they are."""
        return self._trained or self.parameters

    def changes(self) -> dict[str, Tensor]:
        """Return the difference to the original tensors."""
        return {name: t.detach() - self._original[name].to(t.device) for name, t in self.stored().items()}

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self.parameters[name].copy_(value)
