"""Where a model computes: on the processor, or on a CUDA device.

Everything that is drawn or quantized is made on the processor and moved afterwards, so that a client with a GPU starts
from the same adapter over the same quantized weights as one without. From there on sums are formed in another order:
one seed gives one result on one kind of machine, not across kinds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fedpeft.errors import BaseError

DEVICE = r"auto|cpu|cuda(:\d+)?"
"""What ``base.device`` may say, as a regular expression."""


def device_of(wanted: str) -> torch.device:
    """Return the device that a name means on this machine.

    Parameters
    ----------
    wanted : str
        ``cpu``, ``cuda`` or ``cuda:1``; ``auto`` is CUDA where torch sees a device, else the processor.

    Raises
    ------
    BaseError
        When torch sees no such device.
    """
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto":
        wanted = "cuda" if seen else "cpu"
    device = torch.device(wanted)
    if device.type == "cuda" and (device.index or 0) >= seen:
        names = ", ".join(f"cuda:{number}" for number in range(seen))
        remedy = "use cpu or auto" if not seen else f"there are {names}"
        raise BaseError("base.device", wanted, "a device that torch sees here", remedy)
    # With its number: tensors say it, and places are compared.
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def place(module: nn.Module, device: torch.device) -> None:
    """Move a module, quantized or not, to a device; its parameters stay the objects they are.

    Parameters
    ----------
    module : nn.Module
    device : torch.device
    """
    # Not the model's own `to`: transformers refuses it for weights that it takes to have quantized itself.
    nn.Module.to(module, device)
    for layer in module.modules():
        state = getattr(layer, "state", None)
        if not hasattr(state, "SCB"):
            continue
        # bitsandbytes keeps an int8 layer's rows and scales beside the parameter, where moving does not find them.
        weight = layer.get_parameter("weight")
        scales: Tensor = state.SCB if weight.SCB is None else weight.SCB  # type: ignore[attr-defined, union-attr]
        state.CB, state.SCB = weight.data, scales.to(device)  # type: ignore[union-attr]
        weight.CB = weight.SCB = None  # type: ignore[attr-defined]


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's own generators inside a ``with``, and put them back as they were.

    Parameters
    ----------
    seed : int
    device : torch.device, optional
        Whose generator draws as well, besides the processor's.
    """
    with torch.random.fork_rng(devices=[device] if device is not None and device.type == "cuda" else []):
        torch.manual_seed(seed % 2**63)
        yield


def chance(device: torch.device) -> list[Tensor]:
    """Return the state of the generators that draw for a device: the processor's, and its own."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def set_chance(states: list[Tensor], device: torch.device) -> None:
    """Put generators back to a state that :func:`chance` returned."""
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
