"""A base's graph, one forward pass at a time, with what it remembers of the tokens before.

There are two ways to run it. :meth:`Decoder.read` takes a past of any number of rows and returns a new one; the adapter
is switched on for that run. :class:`fedpeft.device.memory.Memory` keeps one row's past in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from fedpeft.device.bundle import Bundle
from fedpeft.device.loaded import LoadedAdapter, run_options
from fedpeft.device.manifest import DecoderFacts
from fedpeft.device.session import Device, open_graph
from fedpeft.errors import BundleError

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Cache:
    """Keys and values of the tokens a row has read; extending one gives another, so it can be shared.

    Parameters
    ----------
    length : int
        Tokens read, the same in every row.
    values : sequence of onnxruntime.OrtValue, each of shape (rows, kv_heads, length, head_dim)
        Key and value of each layer in turn.
    """

    length: int
    values: Sequence[Any]

    def rows(self, chosen: NDArray[np.int64]) -> Cache:
        """Return a cache whose rows are copies of the chosen ones."""
        picked = [ort.OrtValue.ortvalue_from_numpy(v.numpy()[chosen]) for v in self.values]
        return Cache(self.length, picked)

    def first(self, length: int) -> Cache:
        """Return a cache of the first tokens only."""
        if length >= self.length:
            return self
        cut = [np.ascontiguousarray(v.numpy()[:, :, :length]) for v in self.values]
        return Cache(length, [ort.OrtValue.ortvalue_from_numpy(v) for v in cut])


class Decoder:
    """A base's graph in an onnxruntime session. Several threads may run it at once.

    Parameters
    ----------
    bundle : Bundle
        Of kind ``base``, verified, and of the variant ``optional``.
    device : Device, optional

    Raises
    ------
    BundleError
        When it is another variant, onnxruntime cannot load the graph, or the graph is of another base than the
        manifest says.
    """

    def __init__(self, bundle: Bundle, device: Device | None = None) -> None:
        manifest = bundle.manifest
        if manifest.decoder is None:
            raise BundleError(f"{bundle.folder} decoder", None, "the facts of a decoder")
        if manifest.variant != "optional":
            remedy = "export the base with --variant optional"
            raise BundleError(f"{bundle.folder} variant", manifest.variant, "'optional'", remedy)
        self.session = open_graph(bundle, device or Device())
        self.facts: DecoderFacts = manifest.decoder
        parts = [f"{i}.{part}" for i in range(self.facts.layers) for part in ("key", "value")]
        self.past = [f"past_key_values.{part}" for part in parts]
        self.present = [f"present.{part}" for part in parts]

    def past_shape(self, length: int) -> tuple[int, int, int, int]:
        """Return the shape of one key or value of one row."""
        return 1, self.facts.kv_heads, length, self.facts.head_dim

    def require_place(self, adapter: LoadedAdapter) -> None:
        """Refuse an adapter whose prefix is not one of this base, or that leaves no room for a text.

        Raises
        ------
        BundleError
            Naming what does not fit.
        """
        where, before = f"adapter of {adapter.owner}", adapter.past + adapter.prompt
        if before >= self.facts.context:
            raise BundleError(where, f"{before} positions before a text", f"fewer than {self.facts.context}")
        if adapter.prefix and adapter.prefix.keys() != set(self.past):
            raise BundleError(f"{where} prefix", f"{len(adapter.prefix)} tensors", f"{len(self.past)} keys and values")
        shape = self.past_shape(adapter.past)
        for name, value in adapter.prefix.items():
            if tuple(value.shape()) != shape or value.data_type() != "tensor(float)":
                raise BundleError(f"{where} {name}", f"{value.data_type()} {value.shape()}", f"float32 {shape}")

    def opening(self, adapter: LoadedAdapter | None) -> list[int]:
        """Return the ids that stand for an adapter's soft prompt; every text begins with them."""
        first = self.facts.vocabulary
        return list(range(first, first + adapter.prompt)) if adapter is not None else []

    def room(self, adapter: LoadedAdapter | None) -> int:
        """Return how many tokens of text fit beside what an adapter puts before them."""
        return self.facts.context - (adapter.past + adapter.prompt if adapter is not None else 0)

    def begin(self, adapter: LoadedAdapter | None = None) -> Cache:
        """Return the cache of a row that has read nothing: empty, or an adapter's prefix."""
        if adapter is not None and adapter.prefix:
            return Cache(adapter.past, [adapter.prefix[name] for name in self.past])
        empty = np.zeros(self.past_shape(0), np.float32)
        return Cache(0, [ort.OrtValue.ortvalue_from_numpy(empty) for _ in self.past])

    def read(self, ids: NDArray[np.int64], cache: Cache, adapter: LoadedAdapter | None) -> tuple[Logits, Cache]:
        """Read tokens.

        Parameters
        ----------
        ids : ndarray of int64, shape (rows, new)
            One row of new tokens for each row of the cache. Rows are never padded: the graph's attention is
            silently wrong with padding on the left.
        cache : Cache
        adapter : LoadedAdapter, optional

        Returns
        -------
        logits : ndarray of float32, shape (rows, new, vocabulary)
        cache : Cache
            With the new tokens.

        Raises
        ------
        BundleError
            When there are no tokens, or they would not fit into the base's context.
        """
        length = self.require_room(ids.shape[1], cache.length)
        feeds = {
            "input_ids": ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(ids)),
            "attention_mask": ort.OrtValue.ortvalue_from_numpy(np.ones((len(ids), length), np.int64)),
            **dict(zip(self.past, cache.values, strict=True)),
        }
        logits, *present = self.session.run_with_ort_values(["logits", *self.present], feeds, run_options(adapter))
        return logits.numpy(), Cache(length, present)

    def require_room(self, new: int, length: int) -> int:
        """Return how long a text will be.

        Raises
        ------
        BundleError
            When nothing is added, or more than the context holds.
        """
        if not new:
            raise BundleError("tokens", "none", "at least one")
        if length + new > self.facts.context:
            raise BundleError("context", f"{length + new} tokens", f"at most {self.facts.context}")
        return length + new
