"""A classification head: the one part of a base that is not published, and so is drawn here.

The head is whatever a checkpoint lacks of the classifier it is loaded as (for BERT: ``classifier``). Its matrices are
drawn from N(0, σ²), σ the model's own ``initializer_range``, each from a stream that hangs on its name alone: every
device starts from the same head, whatever its torch, processor or precision. It is float32 over an encoder of any
precision, because it is trained.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fedpeft.seeds import stream

_SEED = 0


def draw_head(model: nn.Module, names: Iterable[str], scale: float) -> None:
    """Give a model's head its starting values.

    Parameters
    ----------
    model : nn.Module
    names : iterable of str
        The head's parameters. Vectors (biases, norms) keep what the architecture starts them with.
    scale : float
        Standard deviation of the matrices.
    """
    for name in sorted(names):
        parameter = model.get_parameter(name)
        if parameter.ndim > 1:
            drawn = stream(_SEED, "classification head", name).normal(0.0, scale, tuple(parameter.shape))
            parameter.data = torch.from_numpy(drawn).float()
        else:
            parameter.data = parameter.data.float()
        owner = model.get_submodule(name.rpartition(".")[0])
        if not any(hook is _in_float32 for hook in owner._forward_pre_hooks.values()):
            owner.register_forward_pre_hook(_in_float32)


def _in_float32(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Lift what the encoder computed to the head's precision."""
    return tuple(x.float() if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs)
