"""LoRA: A and B by module, the scaling in B; DoRA has the lengths of the changed weight's rows besides.

    lora_A = Aᵀ,   lora_B = s Bᵀ,   out_scale = m / ||W + s B A||_row

DoRA leaves a bias alone that out_scale reaches, so where the base has one:  bias_delta = (1 - out_scale) * bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from re import compile as pattern
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpeft.adapters import Adapter
from fedpeft.adapters.factors import module_scaling
from fedpeft.errors import AdapterError
from fedpeft.export.fill.filling import PREFIX, Filling, Inputs, contiguous
from fedpeft.export.fill.ground import Ground

_FACTOR = pattern(r"base_model\.model\.(?P<module>.+)\.lora_(?P<part>[AB])\.weight")
_MAGNITUDE = pattern(r"base_model\.model\.(?P<module>.+)\.lora_magnitude_vector(?:\.weight)?")

_VARIANTS = (
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
)
"""Settings with which peft computes something else from A and B, or trains more than them."""


def fill_lora(adapter: Adapter, ground: Ground | None) -> Filling:
    """Fill the sites of LoRA and DoRA.

    Raises
    ------
    AdapterError
        When it is neither, its numbers do not fit each other, or a DoRA comes without its base.
    """
    require_plain(adapter.config)
    inputs: Inputs = {}
    magnitudes: Inputs = {}
    for name, tensor in adapter.tensors().items():
        if adapter.config.get("use_dora") and (length := _MAGNITUDE.fullmatch(name)):
            magnitudes[length["module"]] = tensor
            continue
        match = _FACTOR.fullmatch(name)
        if match is None or tensor.ndim != 2:
            raise AdapterError(f"adapter tensor {name}", "no LoRA matrix", "lora_A or lora_B of a linear layer")
        factor = np.float32(1)
        if match["part"] == "B":
            factor = np.float32(module_scaling(adapter.config, match["module"], tensor.shape[1]))
        inputs[name.removeprefix(PREFIX)] = contiguous(tensor.T * factor)
    modules = {name.rsplit(".lora_", 1)[0] for name in inputs}
    for module in modules:
        down, up = inputs.get(f"{module}.lora_A.weight"), inputs.get(f"{module}.lora_B.weight")
        if down is None or up is None or down.shape[1] != up.shape[0]:
            raise AdapterError(f"adapter module {module}", "A and B that do not fit", "both, of one rank")
    if not adapter.config.get("use_dora"):
        return Filling(inputs)
    if magnitudes.keys() != modules:
        raise AdapterError("adapter use_dora", f"{len(magnitudes)} magnitudes", f"one for each of {len(modules)}")
    return Filling(inputs) | Filling(_lengths(inputs, magnitudes, ground))


def require_plain(config: Mapping[str, Any]) -> None:
    """Refuse settings that would need other sites in the graph, or would be lost.

    Raises
    ------
    AdapterError
    """
    if config.get("bias", "none") != "none":
        raise AdapterError("adapter bias", config["bias"], "none", "export a plain LoRA")
    for field in _VARIANTS:
        if config.get(field):
            raise AdapterError(f"adapter {field}", config[field], "nothing", "export a plain LoRA")


def _lengths(factors: Inputs, magnitudes: Inputs, ground: Ground | None) -> Inputs:
    if ground is None:
        raise AdapterError(
            "adapter use_dora", True, "the base beside it", "its lengths are relative to the base's rows"
        )
    inputs: Inputs = {}
    for module, magnitude in magnitudes.items():
        change = factors[f"{module}.lora_A.weight"].astype(np.float64) @ factors[f"{module}.lora_B.weight"]
        moved = ground.weights.read(f"{module}.weight") + change.T
        scale = magnitude.ravel() / np.linalg.norm(moved, axis=1)
        inputs[f"{module}.out_scale"] = contiguous(scale)
        if f"{module}.bias" in ground.weights:
            inputs[f"{module}.bias_delta"] = _undone(scale, ground.weights.read(f"{module}.bias"))
    return inputs


def _undone(scale: NDArray[np.floating], bias: NDArray[np.float32]) -> NDArray[np.float32]:
    return contiguous((1 - scale) * bias)
