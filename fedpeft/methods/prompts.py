"""Soft prompts: k trained vectors before the text, where word embeddings would be.

    h = f([P; E(x)]),   P: [k, d]

The k positions are read by every later one and taken off the end again, so that a caller sees one output per token. An
encoder that pools its first position pools the first prompt vector, as under peft. Prompts of several slots follow each
other, the one attached first standing first. A prompt of nothing but zeros is no prompt: what a closed gate leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from peft import PromptTuningConfig
from torch import Tensor, nn
from transformers import PreTrainedModel

from fedpeft.methods.attachment import Attachment
from fedpeft.methods.inputs import (
    is_marked,
    learnt_positions,
    make_room,
    mark,
    named,
    parameter_names,
    require_positions,
)
from fedpeft.methods.layout import layout
from fedpeft.methods.peft_method import plain

VECTORS = "prompt_embeddings"
"""What peft's files call prompts and prefixes."""


class Vectors(nn.Module):
    """Free vectors.

    Parameters
    ----------
    start : Tensor, shape (k, width)
    """

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.prompt_embeddings = nn.Parameter(start.float())

    def forward(self) -> Tensor:
        """Return the vectors."""
        return self.prompt_embeddings


class Prompts(Attachment):
    """Trained vectors before the text.

    Parameters
    ----------
    model : PreTrainedModel
    vectors : nn.Module
        Gives the (k, hidden) vectors, float32; its parameters are trained.
    config : mapping, optional
        What ``adapter_config.json`` says; peft's own for plain vectors by default.
    """

    head_prefix = "base_model."

    def __init__(self, model: PreTrainedModel, vectors: nn.Module, config: Mapping[str, Any] | None = None) -> None:
        found = layout(model)
        self._vectors, self._embedding = vectors, found.embedding
        with torch.no_grad():
            count = len(vectors())
        self._plain = prompt_config(model, count)
        super().__init__(dict(vectors.named_parameters()), config or self._plain)
        self._on, self._added = False, 0
        self._names, self._room = parameter_names(found.backbone), learnt_positions(found.backbone)
        # An encoder without a pooler leaves pooling to a head that takes position 0: the prompt's, as under peft.
        self._strips = getattr(found.backbone, "pooler", True) is not None
        # Later attachments run first and so stand nearer to the text; and all of them before any prefix.
        found.backbone.register_forward_pre_hook(self._add, with_kwargs=True, prepend=True)
        found.backbone.register_forward_hook(self._strip)

    def enable(self, on: bool) -> None:
        """Put the vectors before every text, or not."""
        self._on = on

    def place(self, device: torch.device) -> None:
        """Move the vectors, or what computes them."""
        self._vectors.to(device)

    def folded(self) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
        """Return the vectors as the prompt that peft opens, whatever they are computed from."""
        return {VECTORS: self._vectors().detach()}, self._plain

    @torch.no_grad()
    def changes(self) -> dict[str, Tensor]:
        """Return the vectors: what they do to an output hangs on the text."""
        return {VECTORS: self._vectors().clone()}

    def _add(
        self, backbone: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        self._added = 0
        vectors = self._vectors() if self._on else None
        if vectors is None or not bool(vectors.any()):
            return None
        given, count = named(self._names, args, kwargs), len(vectors)
        make_room(given, count)
        if is_marked(given.get("past_key_values"), self):
            return (), given
        embeds = given.get("inputs_embeds")
        embeds = self._embedding(given.pop("input_ids")) if embeds is None else embeds
        require_positions(self._room, count, embeds.shape[1])
        rows = len(embeds)
        given["inputs_embeds"] = torch.cat([vectors.to(embeds).expand(rows, -1, -1), embeds], dim=1)
        if given.get("token_type_ids") is not None:
            types = given["token_type_ids"]
            given["token_type_ids"] = torch.cat([types.new_zeros(len(types), count), types], dim=1)
        if given.get("position_ids") is not None:
            own = torch.arange(count, device=embeds.device)
            positions = given["position_ids"]
            given["position_ids"] = torch.cat([own.expand(len(positions), -1), positions], dim=1)
        self._added = count
        return (), given

    def _strip(self, _: nn.Module, args: tuple[Any, ...], out: Any) -> Any:
        if not self._added:
            return None
        if getattr(out, "past_key_values", None) is not None:
            mark(out.past_key_values, self)
        if not self._strips:
            return None
        if isinstance(out, tuple):
            return (out[0][:, self._added :], *out[1:])
        out.last_hidden_state = out.last_hidden_state[:, self._added :]
        if getattr(out, "hidden_states", None) is not None:
            out.hidden_states = tuple(h[:, self._added :] for h in out.hidden_states)
        return out


def prompt_config(model: PreTrainedModel, count: int) -> dict[str, Any]:
    """Return peft's configuration of a prompt of ``count`` vectors."""
    found = layout(model)
    return plain(
        PromptTuningConfig(
            num_virtual_tokens=count,
            token_dim=found.hidden,
            num_transformer_submodules=1,
            num_attention_heads=found.heads,
            num_layers=len(found.layers),
        )
    )
