"""What a LoRA changes: for every module ``s B A``, with A [r, in] and B [out, r].

Norms and errors of sums of such changes are computed without the changes themselves, which would be as large as
the base. With B = [w1 s1 B1, w2 s2 B2, …] = Q R and A = [A1; A2; …] = (P T)ᵀ,

    || Σ w s B A ||_F = || R Tᵀ ||_F,

exact in float64, at the cost of two thin QR factorizations per module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from re import compile as pattern
from re import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peft.utils.other import get_pattern_key

from fedpeft.adapters.adapter import Adapter
from fedpeft.adapters.schema import Schema, Vector
from fedpeft.errors import AdapterError

Matrix = NDArray[np.float64]

_TENSOR = pattern(r"base_model\.model\.(?P<module>.+)\.lora_(?P<part>[AB])\.weight")

_VARIANTS = {
    "use_dora": "its change depends on the lengths of the base's rows, which no sum of adapters has",
    "lora_bias": "its bias is a change of its own",
    "modules_to_save": "whole layers travel with it",
    "trainable_token_indices": "embedding rows travel with it",
    "target_parameters": "it changes bare parameters",
    "layer_replication": "it changes the number of layers",
    "alora_invocation_tokens": "it acts on some tokens only",
    "use_qalora": "it pools its input",
    "use_bdlora": "its factors are block diagonal",
    "arrow_config": "it is a mixture",
    "kasa_config": "it is not a product of two factors",
    "monteclora_config": "it is not a product of two factors",
    "velora_config": "it is not a product of two factors",
}
_MOVES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class Factors:
    """One module's change ``scaling * b @ a``.

    Parameters
    ----------
    a : ndarray, shape (r, in)
    b : ndarray, shape (out, r)
    scaling : float
    """

    a: NDArray[np.floating]
    b: NDArray[np.floating]
    scaling: float = 1.0

    @property
    def rank(self) -> int:
        """The number of directions."""
        return int(self.a.shape[0])

    def change(self) -> Matrix:
        """Return the change itself, of shape (out, in), in float64."""
        return self.scaling * (self.b.astype(np.float64) @ self.a.astype(np.float64))


def lora_scaling(config: Mapping[str, Any]) -> float:
    """Return the factor a peft LoRA configuration puts before ``B A``."""
    rank, alpha = float(config["r"]), float(config["lora_alpha"])
    return float(alpha / np.sqrt(rank)) if config.get("use_rslora") else alpha / rank


def module_scaling(config: Mapping[str, Any], module: str, rank: int) -> float:
    """Return a module's own scaling; peft lets single modules have a rank and an alpha of their own.

    Raises
    ------
    AdapterError
        When the configuration says another rank than the tensors have.
    """
    ranks, alphas = config.get("rank_pattern") or {}, config.get("alpha_pattern") or {}
    expected = ranks.get(get_pattern_key(list(ranks), module), config["r"])
    if rank != expected:
        raise AdapterError(f"adapter rank of {module}", rank, f"{expected}, as its configuration says")
    alpha = alphas.get(get_pattern_key(list(alphas), module), config["lora_alpha"])
    return lora_scaling({**config, "r": rank, "lora_alpha": alpha})


def factors(adapter: Adapter) -> dict[str, Factors]:
    """Return a plain LoRA's factors by module, named as in the base.

    Raises
    ------
    AdapterError
        When its change is not a sum of products ``s B A`` over linear layers.
    """
    require_plain(adapter.config)
    halves: dict[str, dict[str, Vector]] = {}
    for name, tensor in adapter.tensors().items():
        match = _TENSOR.fullmatch(name)
        if match is None or tensor.ndim != 2:
            raise AdapterError(f"adapter tensor {name}", tensor.shape, "lora_A or lora_B of a linear layer")
        halves.setdefault(match["module"], {})[match["part"]] = tensor
    found = {}
    for module, half in halves.items():
        if half.keys() != {"A", "B"} or half["A"].shape[0] != half["B"].shape[1]:
            raise AdapterError(f"adapter module {module}", {k: t.shape for k, t in half.items()}, "A and B that fit")
        rank = half["A"].shape[0]
        found[module] = Factors(half["A"], half["B"], module_scaling(adapter.config, module, rank))
    if not found:
        raise AdapterError("adapter tensors", "none", "at least one")
    return found


def require_plain(config: Mapping[str, Any]) -> None:
    """Refuse what is not a plain LoRA, with the reason.

    Raises
    ------
    AdapterError
    """
    if config.get("peft_type") != "LORA":
        raise AdapterError("adapter type", config.get("peft_type"), "plain LORA adapters")
    for setting, reason in _VARIANTS.items():
        if config.get(setting):
            raise AdapterError(f"adapter {setting}", config[setting], "plain LORA adapters", reason)
    if config.get("bias", "none") != "none":
        raise AdapterError("adapter bias", config["bias"], "'none'", "biases of the base travel with it")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_MOVES_BASE):
        remedy = "save it with peft's path_initial_model_for_weight_conversion first"
        raise AdapterError("adapter init_lora_weights", start, "a start that leaves the base as it was", remedy)


def assemble(parts: Mapping[str, Factors], like: Adapter) -> Adapter:
    """Make a LoRA of scaling 1 from factors by module, in words that peft understands.

    Modules need not have one rank: the commonest becomes ``r`` and the others are named in ``rank_pattern``.
    Modules of rank 0 are left out.

    Parameters
    ----------
    parts : mapping of str to Factors
    like : Adapter
        Whose configuration says the rest. Its ``target_modules`` stay when they name the same modules;
        otherwise each module is named in full.

    Raises
    ------
    AdapterError
        When nothing is left.
    """
    kept = {module: part for module, part in sorted(parts.items()) if part.rank}
    if not kept:
        raise AdapterError("adapter rank", 0, "at least one direction")
    tensors: dict[str, Vector] = {}
    for module, part in kept.items():
        prefix = f"base_model.model.{module}"
        tensors[f"{prefix}.lora_A.weight"] = part.a.astype(np.float32)
        # One rounding: the scaling is applied in float64.
        tensors[f"{prefix}.lora_B.weight"] = (part.scaling * part.b.astype(np.float64)).astype(np.float32)
    schema = Schema.of({name: t.shape for name, t in tensors.items()})
    ranks = {module: part.rank for module, part in kept.items()}
    same = {n.removeprefix("base_model.model.").rsplit(".lora_", 1)[0] for n in like.schema.names()} == kept.keys()
    config = {**like.config, **_ranks(ranks), **({} if same else _targets(kept))}
    return Adapter(schema, schema.flatten(tensors), config, like.base)


def norm(terms: Iterable[tuple[float, Factors]]) -> float:
    """Return the Frobenius norm of a weighted sum of changes of one module, in float64."""
    pairs = list(terms)
    left = np.concatenate([w * t.scaling * t.b.astype(np.float64) for w, t in pairs], axis=1)
    right = np.concatenate([t.a.astype(np.float64) for _, t in pairs], axis=0)
    upper, lower = (np.asarray(np.linalg.qr(side, mode="r")) for side in (left, right.T))
    return float(np.linalg.norm(upper @ lower.T))


def change_norm(adapter: Adapter) -> float:
    """Return the Frobenius norm of everything a LoRA changes."""
    return float(np.linalg.norm([norm([(1.0, part)]) for part in factors(adapter).values()]))


def change_error(result: Adapter, adapters: Sequence[Adapter], weights: Sequence[float]) -> float:
    """Return the relative error of one LoRA's change against the weighted sum of others', in float64.

    Parameters
    ----------
    result : Adapter
    adapters : sequence of Adapter
    weights : sequence of float

    Returns
    -------
    float
        ``||ΔW − Σ w ΔW_i|| / ||Σ w ΔW_i||`` over all modules; of a sum that is zero, the numerator.
    """
    parts, terms = [factors(a) for a in adapters], factors(result)
    wrong, whole = [], []
    for module in sorted({*terms, *(m for p in parts for m in p)}):
        expected = [(w, p[module]) for w, p in zip(weights, parts, strict=True) if module in p]
        found = [(-1.0, terms[module])] if module in terms else []
        wrong.append(norm(expected + found))
        whole.append(norm(expected) if expected else 0.0)
    size = float(np.linalg.norm(whole))
    return float(np.linalg.norm(wrong)) / (size or 1.0)


def relative_error(result: Adapter, reference: Adapter) -> float:
    """Return how far an adapter is from another: of the change for a plain LoRA, of the parameters otherwise."""
    try:
        return change_error(result, [reference], [1.0])
    except AdapterError:
        size = float(np.linalg.norm(reference.vector.astype(np.float64)))
        return float(np.linalg.norm(result.vector.astype(np.float64) - reference.vector)) / (size or 1.0)


def _ranks(ranks: Mapping[str, int]) -> dict[str, Any]:
    """Say ranks and scaling 1 in peft's words, whose patterns are regular expressions for the end of a name."""
    counts = Counter(ranks.values())
    usual = min(counts, key=lambda rank: (-counts[rank], rank))
    others = {f"^{escape(module)}": rank for module, rank in ranks.items() if rank != usual}
    return {
        "r": usual,
        "lora_alpha": usual,
        "rank_pattern": others,
        "alpha_pattern": dict(others),
        "use_rslora": False,
        "init_lora_weights": True,
    }


def _targets(modules: Iterable[str]) -> dict[str, Any]:
    return {
        "target_modules": sorted(modules),
        "exclude_modules": None,
        "layers_to_transform": None,
        "layers_pattern": None,
    }
