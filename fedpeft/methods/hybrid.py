"""Several methods at once on one model: composition is data, a hybrid is the list of its parts."""

from __future__ import annotations

from transformers import PreTrainedModel

from fedpeft.errors import ScenarioError
from fedpeft.methods.attachment import Attachment, Joined
from fedpeft.methods.method import Method


class Hybrid(Method):
    """A method whose fields are methods; each is a ``[method.FIELD]`` table, and FIELD leads its tensors' names."""

    def attach(self, model: PreTrainedModel, slot: str) -> Attachment:
        """Attach every part, in the order of the fields."""
        return Joined([(f"{name}.", _attach(name, part, model, slot)) for name, part in self.parts()], self.saved())

    def private(self, rank: int) -> Method | None:
        """Return a private adapter of the first part's kind: it lies over all of them."""
        return self.parts()[0][1].private(rank)

    def parts(self) -> list[tuple[str, Method]]:
        """Return the parts by field."""
        fields = [(name, getattr(self, name)) for name in type(self).model_fields]
        return [(name, part) for name, part in fields if isinstance(part, Method)]


def _attach(name: str, part: Method, model: PreTrainedModel, slot: str) -> Attachment:
    try:
        return part.attach(model, slot)
    except ScenarioError as error:
        field = error.field.replace("method.", f"method.{name}.", 1)
        raise ScenarioError(field, error.value, error.expected, error.remedy) from error
