"""A backbone's call as its hooks see it: arguments by name, with room for positions before the text.

Prompts and prefixes both put k positions before the text. What is trained there speaks once per text: in every call
without a cache, and in the first call of a generation with one. The cache then holds what it said, and carries a mark
that it does; later calls need no more than a longer attention mask.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedpeft.errors import ScenarioError

_MARK = "_fedpeft_heard"


def parameter_names(module: nn.Module) -> list[str]:
    """Return the names of what a module's forward takes, in order: callers may leave them out."""
    return list(inspect.signature(module.forward).parameters)


def named(names: Sequence[str], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call's arguments by name."""
    return {**dict(zip(names, args, strict=False)), **kwargs}


def text(given: Mapping[str, Any]) -> Tensor:
    """Return the ids or the vectors that the backbone is to read."""
    embeds = given.get("inputs_embeds")
    found: Tensor = given["input_ids"] if embeds is None else embeds
    return found


def make_room(given: dict[str, Any], count: int) -> None:
    """Let the text attend to ``count`` positions before it, and count its own positions from there.

    Raises
    ------
    ScenarioError
        For a mask that is not over tokens, as caches of fixed size make them.
    """
    mask, positions = given.get("attention_mask"), given.get("position_ids")
    if mask is not None:
        if not isinstance(mask, Tensor) or mask.dim() != 2:
            found = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
            raise ScenarioError(
                "attention_mask", found, "a (texts, tokens) mask", "prompts and prefixes need a cache that grows"
            )
        given["attention_mask"] = torch.cat([mask.new_ones(len(mask), count), mask], dim=1)
    if positions is not None:
        given["position_ids"] = positions + count


def learnt_positions(backbone: nn.Module) -> int | None:
    """Return how many positions a backbone has learnt, None when they are computed."""
    table = getattr(getattr(backbone, "embeddings", None), "position_embeddings", None)
    if not isinstance(table, nn.Embedding):
        return None
    return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)


def require_positions(known: int | None, count: int, tokens: int) -> None:
    """Refuse a text that ``count`` positions before it push beyond the last learnt one.

    Raises
    ------
    ScenarioError
    """
    if known is not None and count + tokens > known:
        raise ScenarioError(
            "method.length",
            count,
            f"at most {max(known - tokens, 0)} before a text of {tokens} tokens",
            f"the base has {known} positions: shorten the prompt or the texts",
        )


def mark(cache: Any, owner: object) -> None:
    """Note in a cache that it holds what ``owner`` adds."""
    cache.__dict__.setdefault(_MARK, set()).add(id(owner))


def is_marked(cache: Any, owner: object) -> bool:
    """Whether a cache holds what ``owner`` adds."""
    return cache is not None and id(owner) in cache.__dict__.get(_MARK, ()) and int(cache.get_seq_length()) > 0
