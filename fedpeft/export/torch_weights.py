"""A base's weights under the names that its modules have, whatever its files call them.

Files of an encoder name what is below its head, and GPT-2's matrices lie the other way round than a linear layer's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import nn
from transformers.pytorch_utils import Conv1D

from fedpeft.errors import BaseError


class ModelWeights:
    """The parameters of a model by name, float32, matrices as (out, in).

    Parameters
    ----------
    model : nn.Module
        Without adapters.
    """

    def __init__(self, model: nn.Module) -> None:
        self._parameters = dict(model.named_parameters())
        self._flipped = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv1D)}

    def __contains__(self, name: str) -> bool:
        return name in self._parameters

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape.

        Raises
        ------
        BaseError
            When there is no tensor of that name.
        """
        if name not in self._parameters:
            raise BaseError("base weights", f"no tensor {name}", "a complete model")
        sizes = tuple(self._parameters[name].shape)
        return sizes[::-1] if name in self._flipped else sizes

    def read(self, name: str) -> NDArray[np.float32]:
        """Return a tensor."""
        self.shape(name)
        array: NDArray[np.float32] = self._parameters[name].detach().float().numpy()
        return array.T if name in self._flipped else array
