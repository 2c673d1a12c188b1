"""One forward pass of a base's graph, with what it remembers of the tokens before."""

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
from fedpeft.device.session import open_graph
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


class Decoder:
    """A base's graph in an onnxruntime session.

    Parameters
    ----------
    bundle : Bundle
        Of kind ``base``, verified.
    threads : int
        For the arithmetic of one run.

    Raises
    ------
    BundleError
        When onnxruntime cannot load the graph, or the graph is of another base than the manifest says.
    """

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self._session = open_graph(bundle, threads)
        if bundle.manifest.decoder is None:
            raise BundleError(f"{bundle.folder} decoder", None, "the facts of a decoder")
        self.facts: DecoderFacts = bundle.manifest.decoder
        layers = range(self.facts.layers)
        self._past = [f"past_key_values.{i}.{part}" for i in layers for part in ("key", "value")]
        self._fetched = ["logits", *(f"present.{i}.{part}" for i in layers for part in ("key", "value"))]

    def begin(self) -> Cache:
        """Return the cache of a row that has read nothing."""
        shape = (1, self.facts.kv_heads, 0, self.facts.head_dim)
        return Cache(0, [ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32)) for _ in self._past])

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
        if not ids.size:
            raise BundleError("tokens", "none", "at least one")
        length = cache.length + ids.shape[1]
        if length > self.facts.context:
            raise BundleError("context", f"{length} tokens", f"at most {self.facts.context}")
        feeds = {
            "input_ids": ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(ids)),
            "attention_mask": ort.OrtValue.ortvalue_from_numpy(np.ones((len(ids), length), np.int64)),
            **dict(zip(self._past, cache.values, strict=True)),
        }
        logits, *present = self._session.run_with_ort_values(self._fetched, feeds, run_options(adapter))
        return logits.numpy(), Cache(length, present)
