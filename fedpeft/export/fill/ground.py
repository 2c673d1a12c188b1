"""What an adapter stands on: its base's weights, and its method attached to the base again where its file is not all.

Some methods send less than they use: Fed-SB its squares but not the frozen factors around them, a P-tuning the network
but not the prompt that it computes. The method is then attached to a base of its own from the run's seed, given the
adapter's tensors, and asked what they amount to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from fedpeft.adapters import Adapter, Schema
from fedpeft.base import Base, load_base
from fedpeft.errors import AdapterError
from fedpeft.export.base import backend_of
from fedpeft.export.encoder_pool import unread_modules
from fedpeft.export.options import Pooling
from fedpeft.export.torch_weights import ModelWeights
from fedpeft.export.weights import Tensors, Weights
from fedpeft.methods.attachment import Attachment, digest
from fedpeft.methods.method import Method

SLOT = "export"


class Ground:
    """A base, and what is needed of it to fill its sites.

    Parameters
    ----------
    base : Base
        Its model object is not touched.
    seed : int, optional
        From which the run's methods drew their starting values and frozen tensors.
    pooling : {"mean", "model"}
        What a classifier's head reads.
    """

    def __init__(self, base: Base, seed: int = 0, pooling: Pooling = "mean") -> None:
        self.base, self._seed, self._pooling = base, seed, pooling
        self._attached: dict[str, Attachment] = {}

    @cached_property
    def weights(self) -> Tensors:
        """The base's tensors, by the names of its modules."""
        return Weights(self.base.folder) if backend_of(self.base) == "native" else ModelWeights(self.fresh())

    @cached_property
    def unread(self) -> frozenset[str]:
        """Modules of a classifier that its head does not hang on."""
        return unread_modules(self.fresh(), self.base, self._pooling)

    def fresh(self) -> PreTrainedModel:
        """Return a model of the base to attach to."""
        dtype = str(self.base.dtype).removeprefix("torch.")
        return load_base(self.base.name, dtype, labels=self.base.labels).model

    def attachment(self, method: Method) -> Attachment:
        """Return a method attached to a base of its own."""
        key = json.dumps([method.name, method.model_dump(mode="json")], sort_keys=True)
        if key not in self._attached:
            model = self.fresh()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self._seed)
                self._attached[key] = method.attach(model, SLOT)
        return self._attached[key]

    def folded(self, method: Method, adapter: Adapter) -> Adapter:
        """Return the simpler adapter that an adapter of this method amounts to.

        Raises
        ------
        AdapterError
            When the tensors are not this method's on this base, or stand on frozen tensors of another seed.
        """
        own = self.attachment(method)
        place(own, adapter)
        tensors, config = own.folded()
        return as_adapter({name: t.float().numpy() for name, t in tensors.items()}, config, adapter.base)


@torch.no_grad()
def place(own: Attachment, adapter: Adapter) -> None:
    """Give an attachment an adapter's numbers.

    Raises
    ------
    AdapterError
        When they do not fit.
    """
    stored, context = own.stored(), digest(own.context)
    Schema.of({name: tuple(t.shape) for name, t in stored.items()}).check(dict(adapter.schema.shapes))
    if adapter.schema.context not in ("", context):
        raise AdapterError(
            "adapter context",
            f"{adapter.schema.context[:12]}…",
            f"the frozen tensors {context[:12]}…",
            "they come from the run's seed: export it from its run",
        )
    for name, tensor in adapter.tensors().items():
        stored[name].copy_(torch.from_numpy(np.ascontiguousarray(tensor)))


def as_adapter(
    tensors: Mapping[str, NDArray[np.floating]], config: Mapping[str, Any], base: str, context: str = ""
) -> Adapter:
    """Make an adapter of tensors by name."""
    schema = Schema.of({name: t.shape for name, t in tensors.items()}, context)
    return Adapter(schema, schema.flatten(tensors), config, base)
