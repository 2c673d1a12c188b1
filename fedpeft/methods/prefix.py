"""Prefixes: k trained keys and values per layer that every token attends to.

    o_l = softmax(Q [P_l^K; K]ᵀ / √d) [P_l^V; V],   P_l^K, P_l^V: [k, heads, d]

They enter as a cache of keys and values, as peft's do: where no cache is given in a new one, in a generation once, at
its first call. The text's positions count from k. Prefixes of several attachments stand beside each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from peft import PrefixTuningConfig
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from fedpeft.methods.attachment import Attachment
from fedpeft.methods.inputs import (
    is_marked,
    learnt_positions,
    make_room,
    mark,
    named,
    parameter_names,
    require_positions,
    text,
)
from fedpeft.methods.layout import layout
from fedpeft.methods.peft_method import plain
from fedpeft.methods.prompts import VECTORS


class Prefixes(Attachment):
    """Trained keys and values before the text.

    Parameters
    ----------
    model : PreTrainedModel
    vectors : nn.Module
        Gives the (k, layers * 2 * heads * head size) numbers, float32, in peft's order; its parameters are trained.
    config : mapping, optional
        What ``adapter_config.json`` says; peft's own for plain vectors by default.
    """

    head_prefix = "base_model."

    def __init__(self, model: PreTrainedModel, vectors: nn.Module, config: Mapping[str, Any] | None = None) -> None:
        found = layout(model)
        self._vectors = vectors
        self._shape = (len(found.layers), 2, found.key_value_heads, found.head_size)
        with torch.no_grad():
            self.count = len(vectors())
        self._plain = prefix_config(model, self.count)
        super().__init__(dict(vectors.named_parameters()), config or self._plain)
        self._on, self._names = False, parameter_names(found.backbone)
        self._dtype, self._caches = model.dtype, bool(getattr(model.config, "use_cache", False))
        self._own: DynamicCache | None = None
        self._room = learnt_positions(found.backbone)
        found.backbone.register_forward_pre_hook(self._fill, with_kwargs=True)
        found.backbone.register_forward_hook(self._release, with_kwargs=True, always_call=True)

    def enable(self, on: bool) -> None:
        """Let every token attend to the prefix, or not."""
        self._on = on

    def place(self, device: torch.device) -> None:
        """Move the numbers, or what computes them."""
        self._vectors.to(device)

    def folded(self) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
        """Return the keys and values as the prefix that peft opens, whatever they are computed from."""
        return {VECTORS: self._vectors().detach()}, self._plain

    @torch.no_grad()
    def changes(self) -> dict[str, Tensor]:
        """Return each layer's keys and values: what they do to an output hangs on the text."""
        return {f"layers.{n}": torch.stack(pair) for n, pair in enumerate(self._per_layer())}

    def _per_layer(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each layer's keys and values, each of shape (1, heads, k, head size)."""
        # (k, layer, key or value, heads, size) is peft's order.
        numbers = self._vectors().view(self.count, *self._shape).permute(1, 2, 3, 0, 4)
        for keys, values in numbers:
            yield keys[None], values[None]

    def _fill(
        self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        self._own = None
        if not self._on:
            return None
        given = named(self._names, args, kwargs)
        make_room(given, self.count)
        cache = given.get("past_key_values")
        if is_marked(cache, self):
            return (), given
        if cache is None:
            given["past_key_values"] = cache = self._own = DynamicCache()
        read_in = text(given)
        require_positions(self._room, self.count, int(cache.get_seq_length()) + read_in.shape[1])
        for number, pair in enumerate(self._per_layer()):
            keys, values = (t.to(read_in.device, self._dtype).expand(len(read_in), -1, -1, -1) for t in pair)
            cache.update(keys, values, number)
        mark(cache, self)
        return (), given

    def _release(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        own, self._own = self._own, None
        wanted = kwargs.get("use_cache")
        if own is None or (self._caches if wanted is None else wanted):
            return None
        # Who asked for no cache must not get ours: generation would go on from it.
        if getattr(out, "past_key_values", None) is own:
            out.past_key_values = None
        return out


@torch.no_grad()
def heard(model: PreTrainedModel, ids: list[int]) -> Tensor:
    """Return the keys and values that a text has in the base, shape (tokens, prefix width).

    As a prefix of a causal model they are that text itself before every other.
    """
    cache = DynamicCache()
    layout(model).backbone(input_ids=torch.tensor([ids], device=model.device), past_key_values=cache)
    layers: list[Any] = cache.layers
    pairs = torch.stack([torch.cat([layer.keys, layer.values]) for layer in layers])
    return pairs.permute(3, 0, 1, 2, 4).reshape(len(ids), -1).float()


def prefix_width(model: PreTrainedModel) -> int:
    """Return how many numbers one position of a prefix is: keys and values of all layers."""
    found = layout(model)
    return 2 * len(found.layers) * found.key_value_heads * found.head_size


def prefix_config(model: PreTrainedModel, count: int) -> dict[str, Any]:
    """Return peft's configuration of a prefix of ``count`` positions."""
    found = layout(model)
    return plain(
        PrefixTuningConfig(
            num_virtual_tokens=count,
            token_dim=found.key_value_heads * found.head_size,
            num_transformer_submodules=1,
            num_attention_heads=found.key_value_heads,
            num_layers=len(found.layers),
            prefix_projection=False,
        )
    )
