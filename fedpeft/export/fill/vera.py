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


def fill_vera(adapter: Adapter, ground: Ground | None) -> Filling:
    """Fill the sites of LoRA with what a VeRA amounts to.

    Raises
    ------
    AdapterError
        When the base is not given, or the tensors are not this VeRA's.
    """
    if ground is None:
        raise AdapterError("adapter vera", "no base", "the base beside it", "its matrices are cut to the base's layers")
    trained = set(adapter.tensors())
    known = {f.name: adapter.config[f.name] for f in fields(VeraConfig) if f.name in adapter.config}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that A and B are not saved: the key makes them again
        config = VeraConfig(**known)
        own = PeftAttachment(ground.fresh(), config, SLOT, keep=trained.__contains__)
    place(own, adapter)
    tensors = {**own.stored(), **own.context}
    a, b = (next(t for name, t in tensors.items() if name.endswith(f"vera_{part}")) for part in "AB")
    inputs: Inputs = {}
    for name, scale in tensors.items():
        if not name.endswith(_OUTER):
            continue
        module = module_of(name, _OUTER)
        write, read = ground.weights.shape(f"{module}.weight")
        inner = tensors[f"{PREFIX}{module}{_INNER}"].detach()
        inputs[f"{module}.lora_A.weight"] = contiguous((inner[:, None] * a[:, :read]).T.numpy())
        inputs[f"{module}.lora_B.weight"] = contiguous((scale.detach()[:, None] * b[:write]).T.numpy())
    return Filling(inputs)
