"""Zeros instead of the numbers that matter least.

``prune`` ranks numbers by magnitude, each tensor by itself, because the scales of A and B say nothing about each
other: of every tensor exactly ``round(density n)`` numbers stay. With ``by="change"`` a number counts for what it
does to ``B A``: ``|A_ij| ||B_:i||`` and ``|B_ij| ||A_j:||``, ranked over the whole adapter.

Zeros lose in both factors of a product: half the numbers gone by magnitude costs a LoRA 30 to 40 % of its change,
ranked by change a third less (docs/adapters.md). Dropping whole directions instead
(:func:`~fedpeft.adapters.compress.prune_rank`) costs about the same per number, needs no places beside the values,
stays in peft's own layout, and computes faster.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np

from fedpeft.adapters.adapter import Adapter
from fedpeft.adapters.compress import Pruned
from fedpeft.adapters.factors import factors, relative_error
from fedpeft.adapters.schema import Vector
from fedpeft.errors import AdapterError


def prune(
    adapter: Adapter,
    density: float,
    by: Literal["magnitude", "change"] = "magnitude",
    relevant: Callable[[str], bool] | None = None,
) -> Pruned:
    """Keep the numbers that matter most and make the others zero.

    Parameters
    ----------
    adapter : Adapter
    density : float
        Share of the numbers to keep, in [0, 1].
    by : {"magnitude", "change"}
        How numbers are ranked; ``change`` is for plain LoRA.
    relevant : callable, optional
        Of a tensor's name: whether zeros in it mean no change. The factors of a LoRA when not given; other
        methods must say.

    Raises
    ------
    AdapterError
        When the density is none, or what zeros mean is not known.
    """
    if not 0.0 <= density <= 1.0:
        raise AdapterError("density", density, "between 0 and 1")
    chosen = relevant or _relevant(adapter)
    vector = adapter.vector.copy()
    if by == "change":
        _keep([*adapter.schema.unflatten(vector).values()], _change_scores(adapter), density)
    else:
        for name, tensor in adapter.schema.unflatten(vector).items():
            if chosen(name):
                _keep([tensor], [np.abs(tensor)], density)
    pruned = replace(adapter, vector=vector)
    mask = adapter.schema.mask(chosen)
    before, after = (np.square(v[mask], dtype=np.float64).sum() for v in (adapter.vector, vector))
    kept = int(np.count_nonzero(vector))
    return Pruned(
        pruned, kept, adapter.schema.size, float(after / before) if before else 1.0, relative_error(pruned, adapter)
    )


def _relevant(adapter: Adapter) -> Callable[[str], bool]:
    if adapter.config.get("peft_type") != "LORA":
        remedy = "say which tensors mean no change at zero, with `relevant`"
        raise AdapterError("adapter type", adapter.config.get("peft_type"), "LORA", remedy)
    return lambda name: ".lora_A." in name or ".lora_B." in name


def _change_scores(adapter: Adapter) -> list[Vector]:
    """Return, in order of the schema, each number's first-order part in the change."""
    parts = factors(adapter)
    scores: dict[str, Vector] = {}
    for module, part in parts.items():
        rows, columns = np.linalg.norm(part.a, axis=1), np.linalg.norm(part.b, axis=0)
        prefix, scaling = f"base_model.model.{module}", abs(part.scaling)
        scores[f"{prefix}.lora_A.weight"] = np.asarray(scaling * np.abs(part.a) * columns[:, None], np.float32)
        scores[f"{prefix}.lora_B.weight"] = np.asarray(scaling * np.abs(part.b) * rows[None, :], np.float32)
    return [scores[name] for name in adapter.schema.names()]


def _keep(tensors: list[Vector], scores: list[Vector], density: float) -> None:
    """Make all but the highest scores zero, in place; among equals the first stay."""
    flat = np.concatenate([score.ravel() for score in scores])
    drop = np.ones(flat.size, bool)
    drop[np.argsort(-flat, kind="stable")[: round(density * flat.size)]] = False
    at = 0
    for tensor in tensors:
        tensor[drop[at : at + tensor.size].reshape(tensor.shape)] = 0.0
        at += tensor.size
