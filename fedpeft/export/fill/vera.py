"""VeRA: two vectors around two frozen random matrices are a LoRA.

lora_A = (d ⊙ A)ᵀ,   lora_B = (b ⊙ B)ᵀ,   A and B cut to the layer's size; peft makes them again from a key
"""

from __future__ import annotations

import warnings
from dataclasses import fields

from peft import VeraConfig

from fedpeft.adapters import Adapter
from fedpeft.errors import AdapterError
from fedpeft.export.fill.filling import PREFIX, Filling, Inputs, contiguous, module_of
from fedpeft.export.fill.ground import SLOT, Ground, place
from fedpeft.methods.peft_method import PeftAttachment

_OUTER, _INNER = ".vera_lambda_b", ".vera_lambda_d"
_SAVED = ("base_model.vera_A", "base_model.vera_B")
"""The frozen matrices in files that peft was told to save them in."""


def fill_vera(adapter: Adapter, ground: Ground | None) -> Filling:
    """Fill the sites of LoRA with what a VeRA amounts to.

    Raises
    ------
    AdapterError
        When the base is not given, or the tensors are not this VeRA's.
    """
    if ground is None:
        raise AdapterError("adapter vera", "no base", "the base beside it", "its matrices are cut to the base's layers")
    tensors: Inputs = dict(adapter.tensors())
    if not tensors.keys() >= set(_SAVED):
        tensors = _made_again(adapter, ground)
    a, b = (tensors[name] for name in _SAVED)
    inputs: Inputs = {}
    for name in (name for name in tensors if name.endswith(_OUTER)):
        module = module_of(name, _OUTER)
        outer, inner = tensors[name], tensors.get(f"{PREFIX}{module}{_INNER}")
        if inner is None:
            raise AdapterError(f"adapter module {module}", f"no {_INNER[1:]}", "both vectors of a VeRA")
        write, read = ground.weights.shape(f"{module}.weight")
        inputs[f"{module}.lora_A.weight"] = contiguous((inner[:, None] * a[:, :read]).T)
        inputs[f"{module}.lora_B.weight"] = contiguous((outer[:, None] * b[:write]).T)
    return Filling(inputs)


def _made_again(adapter: Adapter, ground: Ground) -> Inputs:
    """Return the trained vectors with the frozen tensors around them, which peft makes of its key."""
    known = {f.name: adapter.config[f.name] for f in fields(VeraConfig) if f.name in adapter.config}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that A and B are not saved: the key makes them again
        own = PeftAttachment(ground.fresh(), VeraConfig(**known), SLOT, keep=set(adapter.tensors()).__contains__)
    place(own, adapter)
    tensors = {name: tensor.detach().numpy() for name, tensor in {**own.stored(), **own.context}.items()}
    # Every layer refers to the same two matrices.
    for saved in _SAVED:
        ending = saved.rsplit(".", 1)[-1]
        tensors[saved] = next(tensor for name, tensor in tensors.items() if name.endswith(ending))
    return tensors
