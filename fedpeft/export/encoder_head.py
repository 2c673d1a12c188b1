"""A classifier's head as inputs of its encoder's graph.

The last layer of a head has one row per class, so it is the adapter's alone: ``head.weight`` and ``head.bias``. Layers
of a head before it (a pooler that the checkpoint lacks, RoBERTa's ``classifier.dense``) lie in the graph as zeros, and
what was trained fills them through their own sites, as a change of full rank:

    y = 0 x + W x + b = x A B + bias_delta,      A = Wᵀ,  B = I,  bias_delta = b

and where the layer has a LoRA too, its factors stand beside those: A = [Wᵀ, A'], B = [I; B'].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedpeft.base import Base
from fedpeft.errors import AdapterError, BaseError

WEIGHT, BIAS = "head.weight", "head.bias"

Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Head:
    """Which parameters of a classifier are its head.

    Parameters
    ----------
    last : str
        The linear layer that makes the logits.
    layers : tuple of str
        Linear layers before it, none in most architectures.
    classes : int
        Rows of the last layer.
    others : tuple of str
        Modules that are no linear layers, such as a norm; a head that runs them cannot be exported.
    """

    last: str
    layers: tuple[str, ...]
    classes: int
    others: tuple[str, ...] = ()

    @classmethod
    def of(cls, base: Base) -> Head:
        """Find the head of a base with labels.

        Raises
        ------
        BaseError
            When it has none.
        """
        names = {name.rpartition(".")[0] for name in base.head}
        shapes = {name: tuple(base.model.get_parameter(f"{name}.weight").shape) for name in names}
        linear = {name for name, shape in shapes.items() if len(shape) == 2}
        wide = [name for name in linear if shapes[name][0] == base.labels]
        # A layer before the last may be as wide as there are classes; the last is the one nothing of the head follows.
        ordered = [name for name, _ in base.model.named_modules() if name in wide]
        if not ordered:
            raise BaseError(f"base {base.name} head", sorted(names) or "none", f"a layer of {base.labels} classes")
        layers, others = sorted(linear - {ordered[-1]}), sorted(names - linear)
        return cls(ordered[-1], tuple(layers), int(base.labels or 0), tuple(others))

    def require_linear(self) -> None:
        """Refuse a head that is more than linear layers.

        Raises
        ------
        BaseError
        """
        if self.others:
            raise BaseError("base head", self.others[0], "linear layers only", 'use pooling = "mean"')

    def clear(self, model: nn.Module) -> None:
        """Take the last layer out of a model and set those before it to zero."""
        with torch.no_grad():
            for name in self.layers:
                for parameter in model.get_submodule(name).parameters():
                    parameter.zero_()
        parent, _, child = self.last.rpartition(".")
        setattr(model.get_submodule(parent), child, nn.Identity())

    def inputs(self, tensors: Mapping[str, NDArray[np.float32]]) -> Arrays:
        """Turn a trained head into the graph's inputs.

        Parameters
        ----------
        tensors : mapping
            The head's parameters by their names in torch, such as ``classifier.weight`` of shape (classes, hidden).

        Raises
        ------
        AdapterError
            When a parameter is missing, there are others, or there are not as many classes as the base has labels.
        """
        known = {f"{name}.{part}" for name in (self.last, *self.layers) for part in ("weight", "bias")}
        if odd := sorted(tensors.keys() - known):
            raise AdapterError("adapter tensor", odd[0], f"a parameter of the head: {', '.join(sorted(known))}")
        weight = tensors.get(f"{self.last}.weight")
        if weight is None:
            raise AdapterError("adapter tensors", sorted(tensors), f"a trained head, {self.last}.weight")
        if len(weight) != self.classes:
            remedy = "the labels of its data have changed since it was trained"
            raise AdapterError(f"adapter {self.last}", f"{len(weight)} classes", f"{self.classes}", remedy)
        bias = tensors.get(f"{self.last}.bias", np.zeros(len(weight), np.float32))
        filled = {WEIGHT: np.ascontiguousarray(weight.T), BIAS: np.ascontiguousarray(bias)}
        for name in self.layers:
            if f"{name}.weight" not in tensors:
                raise AdapterError("adapter tensors", sorted(tensors), f"{name}.weight, a part of the head")
            trained = np.ascontiguousarray(tensors[f"{name}.weight"].T)
            filled[f"{name}.lora_A.weight"] = trained
            filled[f"{name}.lora_B.weight"] = np.eye(trained.shape[1], dtype=np.float32)
            if f"{name}.bias" in tensors:
                filled[f"{name}.bias_delta"] = tensors[f"{name}.bias"]
        return filled

    def divide(self, tensors: Mapping[str, NDArray[np.float32]]) -> tuple[Arrays, Arrays]:
        """Return the tensors of an adapter that are its head's, by their names in torch, and the others as they are.

        Those of parts that no exported head runs are left out.
        """
        mine, others = Arrays(), Arrays()
        for name, tensor in tensors.items():
            plain = name.removeprefix("base_model.").removeprefix("model.")
            owner = plain.rpartition(".")[0]
            if owner in self.others:
                continue
            of_head = owner in (self.last, *self.layers)
            (mine if of_head else others)[plain if of_head else name] = tensor
        return mine, others


def joined(adapter: Mapping[str, NDArray[np.float32]], head: Mapping[str, NDArray[np.float32]]) -> Arrays:
    """Put an adapter's inputs and its head's together; where both change a layer, their factors stand side by side."""
    both: Arrays = {**adapter, **head}
    for name in adapter.keys() & head.keys():
        if name.endswith(".bias_delta"):
            both[name] = adapter[name] + head[name]
        else:
            both[name] = np.concatenate([adapter[name], head[name]], axis=1 if ".lora_A." in name else 0)
    return both


def narrowed(inputs: Mapping[str, NDArray[np.float32]], classes: slice) -> Arrays:
    """Return an adapter's inputs with some of its head's classes: those of the task that its owner has."""
    kept: Arrays = dict(inputs)
    for name in (WEIGHT, BIAS):
        if name in kept:
            kept[name] = np.ascontiguousarray(kept[name][..., classes])
    return kept
