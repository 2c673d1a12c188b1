"""Examples in one row that do not see each other: block-diagonal causal attention.

Token i may look at token j when j ≤ i and both belong to one example, examples beginning where positions are 0::

    e_i = #{k ≤ i : p_k = 0},   M_ij = 0 if j ≤ i and e_j = e_i, else the least number

Rotary and learnt positions begin anew with each, so an example's hidden states are those it has in a row of its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from fedpeft.errors import ScenarioError
from fedpeft.tasks.task import Batch

_NEAR = 0.05
_OFF = "set data.packing = false"


def reading(batch: Batch, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return what a decoder is given to read a batch.

    Parameters
    ----------
    batch : Batch
    dtype : torch.dtype
        What the decoder computes in.
    """
    if batch.positions is None:
        return {"input_ids": batch.ids}
    return {"input_ids": batch.ids, "position_ids": batch.positions, "attention_mask": apart(batch.positions, dtype)}


def apart(positions: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what is added to attention scores, shape (b, 1, t, t).

    Parameters
    ----------
    positions : Tensor of int64, shape (b, t)
    dtype : torch.dtype
    """
    example = (positions == 0).cumsum(dim=1)
    length = positions.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=positions.device).tril()
    seen = earlier & (example[:, :, None] == example[:, None, :])
    hidden = torch.zeros(seen.shape, dtype=dtype, device=positions.device)
    return hidden.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


@torch.no_grad()
def require_apart(model: PreTrainedModel, length: int) -> None:
    """Refuse a base that would let one example of a row see another, by letting it read two.

    Parameters
    ----------
    model : PreTrainedModel
        A causal language model.
    length : int
        Tokens of a row.

    Raises
    ------
    ScenarioError
    """
    name = type(model).__name__
    for field in ("sliding_window", "attention_chunk_size"):
        reach = getattr(model.config, field, None)
        if reach is not None and reach < length and getattr(model.config, f"use_{field}", True):
            raise ScenarioError("data.packing", True, f"data.window of at most {reach}", f"{name} sees no further")
    causal: Any = model
    decoder = getattr(causal, causal.base_model_prefix)
    dtype = causal.get_input_embeddings().weight.dtype

    def states(ids: list[int], positions: list[int] | None) -> Tensor:
        given = None if positions is None else torch.tensor([positions], device=model.device)
        batch = Batch(torch.tensor([ids], device=model.device), torch.empty(0), positions=given)
        found: Tensor = decoder(**reading(batch, dtype), use_cache=False).last_hidden_state[0].float()
        return found

    second, places = [5, 6, 7, 8], [0, 1, 2, 3, 4, 0, 1, 2, 3]
    try:
        one, other = (states([*first, *second], places)[5:] for first in ([1, 2, 3, 4, 5], [9, 8, 7, 6, 5]))
        alone = states(second, None)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ScenarioError("data.packing", True, "a base that takes masks and positions", f"{name}: {_OFF}") from error
    # What is not looked at changes no bit; what begins anew is as alone, but for the order of sums.
    if not torch.equal(one, other) or (one - alone).abs().max() > _NEAR * alone.abs().max():
        raise ScenarioError(
            "data.packing", True, "a base whose attention alone joins tokens", f"{name} lets examples mix: {_OFF}"
        )
