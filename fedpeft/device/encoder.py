"""One pass of an encoder's graph over a batch of texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedpeft.device.bundle import TOKENIZER, Bundle
from fedpeft.device.loaded import LoadedAdapter, run_options
from fedpeft.device.manifest import EncoderFacts
from fedpeft.device.session import Device, open_graph
from fedpeft.device.text import read_tokenizer
from fedpeft.errors import BundleError

Rows = NDArray[np.float32]


class Encoder:
    """An encoder's graph and tokenizer.

    Parameters
    ----------
    bundle : Bundle
        Of kind ``base``, verified, and of the variant ``optional``.
    device : Device
        How the graph is run here.

    Raises
    ------
    BundleError
        When it is the bundle of a decoder or another variant, onnxruntime cannot load the graph, or the graph is of
        another base.
    """

    def __init__(self, bundle: Bundle, device: Device) -> None:
        if bundle.manifest.encoder is None:
            remedy = "open it with Runtime" if bundle.manifest.decoder is not None else None
            raise BundleError(f"{bundle.folder} encoder", None, "the facts of an encoder", remedy or "")
        if bundle.manifest.variant != "optional":
            remedy = "export the base with --variant optional"
            raise BundleError(f"{bundle.folder} variant", bundle.manifest.variant, "'optional'", remedy)
        self.facts: EncoderFacts = bundle.manifest.encoder
        self._session = open_graph(bundle, device)
        self._tokenizer = read_tokenizer(bundle.read(TOKENIZER))
        self._tokenizer.enable_truncation(self.facts.context)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return token ids with the encoder's marks around each text; what is beyond its context is cut off."""
        return [list(found.ids) for found in self._tokenizer.encode_batch(list(texts))]

    def read(self, rows: Sequence[Sequence[int]], adapter: LoadedAdapter | None) -> tuple[Rows, Rows]:
        """Read one batch.

        Parameters
        ----------
        rows : sequence of sequence of int
            Token ids; shorter rows are padded on the right here, and the padding is not attended to.
        adapter : LoadedAdapter, optional

        Returns
        -------
        logits : ndarray of float32, shape (batch, classes)
            Without an adapter there are no classes.
        pooled : ndarray of float32, shape (batch, hidden)
            What the head reads.
        """
        if not rows or not all(rows):
            raise BundleError("texts", [len(row) for row in rows], "texts of at least one token")
        longest = max(map(len, rows))
        ids = np.full((len(rows), longest), self.facts.pad, np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = row, 1
        feeds = {"input_ids": ids, "attention_mask": mask}
        logits, pooled = self._session.run(["logits", "pooled"], feeds, run_options(adapter))
        return logits, pooled
