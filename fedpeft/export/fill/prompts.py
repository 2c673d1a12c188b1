"""Prompts, which ids from the vocabulary's size on look up, and prefixes, which are a cache to begin with.

    soft_prompt = P: (tokens, hidden);     past_key_values.l.key = P_l^K: (1, kv_heads, positions, head_dim)

A prompt of zeros is no prompt (:mod:`fedpeft.methods.prompts`), so it is left out.
"""

from __future__ import annotations

from fedpeft.adapters import Adapter
from fedpeft.errors import AdapterError
from fedpeft.export.fill.filling import Filling, contiguous, only
from fedpeft.export.fill.ground import Ground
from fedpeft.methods.layout import layout
from fedpeft.methods.prompts import VECTORS


def fill_prompt(adapter: Adapter, _ground: Ground | None) -> Filling:
    """Fill the site of soft prompts.

    Raises
    ------
    AdapterError
        When the tensors are no prompt, or the prompt is nothing.
    """
    prompt = only(adapter.tensors(), VECTORS)
    if prompt.ndim != 2 or not prompt.any():
        raise AdapterError(f"adapter tensor {VECTORS}", prompt.shape, "vectors that are not all zero")
    return Filling({"soft_prompt": contiguous(prompt)})


def fill_prefix(adapter: Adapter, ground: Ground | None) -> Filling:
    """Make the cache that a prefix is.

    Raises
    ------
    AdapterError
        When the tensors are no prefix for this base, or the base is not given.
    """
    numbers = only(adapter.tensors(), VECTORS)
    if ground is None:
        raise AdapterError("adapter prefix", "no base", "the base beside it", "its heads say how the numbers lie")
    found = layout(ground.base.model)
    layers, heads, size = len(found.layers), found.key_value_heads, found.head_size
    if numbers.ndim != 2 or numbers.shape[1] != layers * 2 * heads * size:
        raise AdapterError(
            f"adapter tensor {VECTORS}", numbers.shape, f"{layers * 2 * heads * size} numbers a position"
        )
    # peft's order is (position, layer, key or value, head, number).
    split = numbers.reshape(len(numbers), layers, 2, heads, size).transpose(1, 2, 3, 0, 4)
    return Filling(
        {},
        {
            f"past_key_values.{layer}.{part}": contiguous(split[layer, side][None])
            for layer in range(layers)
            for side, part in enumerate(("key", "value"))
        },
    )
