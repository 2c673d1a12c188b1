"""The shape of a PEFT method, and the table of those that exist.

A method is its configuration: a frozen pydantic model whose fields are what a scenario's ``[method]`` table
may say, with the properties that decide what it can be combined with as class variables.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from transformers import PreTrainedModel

from fedpeft.adapters.schema import Schema, Vector
from fedpeft.errors import ScenarioError, nearest
from fedpeft.methods.attachment import OWN_TYPE, Attachment


class Algebra(StrEnum):
    """What averaging a method's parameters means for the change they make to the base."""

    LINEAR = "linear"
    MULTILINEAR = "multilinear"
    NORM = "norm"
    NETWORK = "network"
    SET = "set"
    UNKNOWN = "unknown"


CAUSAL, CLASSIFICATION = "causal", "classification"


class Method(BaseModel, ABC):
    """A parameter-efficient method and its settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: ClassVar[str]
    algebra: ClassVar[Algebra]
    mergeable: ClassVar[bool]
    """Whether the trained change can be folded into the base's own weights."""
    joins: ClassVar[bool] = False
    second: ClassVar[str] = ""
    """Part of the names of a product's second factor, which starts at zero; empty where there is none."""
    """Whether a shared and a private adapter can be written as one adapter, as devices need it."""
    tasks: ClassVar[frozenset[str]] = frozenset({CAUSAL, CLASSIFICATION})
    keeps: ClassVar[tuple[str, ...]] = ()
    """Parts of tensor names that stay with the client unless a scenario says otherwise: routers, fusion."""
    precision: ClassVar[str] = "full"
    """What the base is quantized to before the method is attached: full, nf4 or int8."""
    checkpointing: ClassVar[bool] = True
    """Whether activations can be recomputed under it; a cache of keys and values forbids that."""
    precedes: ClassVar[bool] = False
    """Whether it puts positions of its own before a text, so that a row must hold one text only."""
    rate: ClassVar[float] = 1e-3
    """A learning rate that suits the method, where none is given: comparisons use it."""
    equation: ClassVar[str]
    source: ClassVar[str]
    sends: ClassVar[str]
    limits: ClassVar[str]

    @abstractmethod
    def attach(self, model: PreTrainedModel, slot: str) -> Attachment:
        """Hang this method's trainables onto a model.

        Parameters
        ----------
        model : PreTrainedModel
            Frozen; its own weights are left as they are. Starting values are drawn from torch's global generator.
        slot : str
            Tells several attachments on one model apart; no tensor name may hold it.

        Raises
        ------
        ScenarioError
            When the model lacks what the method needs.
        """

    def foundations(self) -> list[Path]:
        """Return the folders of the adapters that it stands on; each must be of the base it is attached to."""
        return []

    def over(self, precision: str) -> Method:
        """Return the method that makes the same change over a base held in ``precision``; itself, as a rule."""
        return self

    @property
    def averaging(self) -> Algebra:
        """The algebra with these settings: :attr:`algebra`, unless one of them changes it."""
        return self.algebra

    def saved(self) -> dict[str, Any]:
        """Return what ``adapter_config.json`` says of a method that peft does not know."""
        return {"peft_type": OWN_TYPE, "method": {"name": self.name, **self.model_dump(mode="json")}}

    def private(self, rank: int) -> Method | None:
        """Return the method of a private adapter on top of this one, or None when two of them do not add up.

        Without one, a person's adapter is the shared one, fine-tuned.
        """
        return None

    def share(self, schema: Schema, start: Vector, trained: Vector, share: float) -> Vector:
        """Return the parameters that make ``share`` of a trained change.

        Parameters
        ----------
        schema : Schema
        start, trained : ndarray of float32, shape (schema.size,)
            Before and after training.
        share : float
            In [0, 1].
        """
        return (start + np.float32(share) * (trained - start)).astype(np.float32)


METHODS: dict[str, type[Method]] = {}


def register(method: type[Method]) -> type[Method]:
    """Add a method to the table under its name."""
    METHODS[method.name] = method
    return method


def known_methods() -> dict[str, type[Method]]:
    """Return the table, with every method file in it."""
    for file in sorted(Path(__file__).parent.glob("*.py")):
        import_module(f"fedpeft.methods.{file.stem}")
    return METHODS


def parse_method(settings: dict[str, Any]) -> Method:
    """Read a scenario's ``[method]`` table.

    Parameters
    ----------
    settings : dict
        ``name`` and the method's own fields; with ``peft:NAME``, those of peft's configuration class.

    Raises
    ------
    ScenarioError
        For an unknown method, an unknown field or a value of the wrong kind.
    """
    fields = dict(settings)
    kind = method_class(fields.pop("name", None))
    try:
        return kind(**fields)
    except ValidationError as error:
        raise first_complaint(error, "method", kind) from error


def method_class(name: object) -> type[Method]:
    """Return the method of a name: one of the table, or ``peft:NAME``.

    Raises
    ------
    ScenarioError
        When there is none.
    """
    from fedpeft.methods.passthrough import PREFIX, known_types, passthrough

    known_methods()
    if isinstance(name, str) and name in METHODS:
        return METHODS[name]
    if isinstance(name, str) and name.startswith(PREFIX):
        return passthrough(name)
    known = [f"{PREFIX}{name}"] if str(name).upper() in known_types() else list(METHODS)
    raise ScenarioError("method.name", name, "a known method", nearest(str(name), known))


def first_complaint(error: ValidationError, prefix: str, model: type[BaseModel]) -> ScenarioError:
    """Turn pydantic's first complaint into one line, with the nearest field for a typo."""
    complaint = error.errors()[0]
    path = _path(complaint["loc"], model)
    field = ".".join([prefix, *path] if prefix else path)
    if complaint["type"] == "extra_forbidden":
        owner = model
        for part in path[:-1]:
            owner = table_of(owner.model_fields[part.partition("[")[0]].annotation) or owner
        return ScenarioError(field, path[-1], "a known field", nearest(path[-1], owner.model_fields))
    message = complaint["msg"].removeprefix("Value error, ")
    return ScenarioError(field, complaint["input"], message[0].lower() + message[1:])


def _path(loc: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    """Return the fields a complaint is about, without the branch of a union that pydantic tried."""
    path: list[str] = []
    owner: type[BaseModel] | None = model
    for part in loc:
        if owner is None:
            break
        if isinstance(part, int) and path:
            path[-1] += f"[{part}]"  # the table of a list of tables
            continue
        path.append(str(part))
        owner = table_of(owner.model_fields[str(part)].annotation) if str(part) in owner.model_fields else None
    return path


def table_of(annotation: Any) -> type[BaseModel] | None:
    """Return the table that a field holds, be it optional; None when it holds a plain value."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None
