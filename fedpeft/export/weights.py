"""A base's weights, read from its files one at a time as float32, whatever precision they lie in."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from fedpeft.errors import BaseError


class Tensors(Protocol):
    """What a graph reads: a base's weights, be they as published or with an adapter merged into them."""

    def __contains__(self, name: str) -> bool: ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape without reading it."""
        ...

    def read(self, name: str) -> NDArray[np.float32]:
        """Return a tensor."""
        ...


class Weights:
    """The tensors of a Hugging Face folder by name.

    Parameters
    ----------
    folder : Path
        Holding one or more ``*.safetensors`` files.

    Raises
    ------
    BaseError
        When a file cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, Path] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for path in sorted(folder.glob("*.safetensors")):
            try:
                with safe_open(path, framework="pt") as file:
                    names: list[str] = file.keys()
                    for name in names:
                        self._files[name] = path
                        self._shapes[name] = tuple(file.get_slice(name).get_shape())
            except (OSError, SafetensorError) as error:
                raise BaseError(f"base weights {path}", str(error), "a whole safetensors file") from error

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape without reading it.

        Raises
        ------
        BaseError
            When there is no tensor of that name.
        """
        if name not in self._shapes:
            raise BaseError(f"base weights {self._folder}", f"no tensor {name}", "a complete model")
        return self._shapes[name]

    def read(self, name: str) -> NDArray[np.float32]:
        """Return a tensor as float32; the numpy reader of safetensors does not know bfloat16."""
        with safe_open(self._files[name], framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(name)
        return tensor.to(torch.float32).numpy()
