"""No method at all: what a classifier learns when its head alone is trained over the frozen base."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from fedpeft.methods import Method
from fedpeft.methods.attachment import Attachment
from fedpeft.methods.method import Algebra


class HeadAlone(Method):
    """Nothing but a task's head. It is not in the table of methods: it is what they are counted from."""

    name: ClassVar[str] = "head"
    algebra: ClassVar[Algebra] = Algebra.LINEAR
    mergeable: ClassVar[bool] = True
    rate: ClassVar[float] = 1e-2
    equation: ClassVar[str] = "h = f(x)"
    source: ClassVar[str] = "linear probe"
    sends: ClassVar[str] = "the head"
    limits: ClassVar[str] = "Only where there is a head."

    def attach(self, model: PreTrainedModel, slot: str) -> Attachment:
        """Attach nothing."""
        return _Nothing({}, self.saved())


class _Nothing(Attachment):
    def enable(self, on: bool) -> None:
        """There is nothing to switch."""

    def changes(self) -> dict[str, Tensor]:
        """Return no changes."""
        return {}
