"""One pass of an encoder's graph over a batch of texts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedpeft.device.bundle import TOKENIZER, Bundle
from fedpeft.device.loaded import LoadedAdapter, run_options
from fedpeft.device.loader import Loader
from fedpeft.device.manifest import EncoderFacts, Manifest
from fedpeft.device.private import settled
from fedpeft.device.session import Device, open_graph
from fedpeft.device.text import read_tokenizer
from fedpeft.errors import BundleError

BATCH = 16
"""Texts in one pass."""

Rows = NDArray[np.float32]
Tokens = list[list[int]]


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

    def encode(self, texts: Sequence[str], length: int | None = None, cut: Literal["end", "start"] = "end") -> Tokens:
        """Return token ids with the encoder's marks around each text.

        Parameters
        ----------
        texts : sequence of str
        length : int, optional
            Most tokens of a text, the marks included; the encoder's context when that is shorter or none is given.
        cut : {"end", "start"}
            Where a text that is longer loses its tokens.
        """
        most = min(length or self.facts.context, self.facts.context)
        return [
            _cut(found.ids, found.special_tokens_mask, most, cut) for found in self._tokenizer.encode_batch([*texts])
        ]

    def read_all(self, rows: Sequence[Sequence[int]], adapter: LoadedAdapter | None) -> tuple[Rows, Rows]:
        """Read texts, :data:`BATCH` of like length in a pass; as :meth:`read`, in the order of the texts."""
        # Texts of a length go together, so that none is padded to another's.
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        classes = len(adapter.manifest.labels) if adapter is not None else 0
        logits = np.zeros((len(rows), classes), np.float32)
        pooled = np.zeros((len(rows), self.facts.hidden), np.float32)
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            logits[part], pooled[part] = self.read([rows[i] for i in part], adapter)
        return logits, pooled

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


@dataclass(frozen=True)
class Opened:
    """An encoder that was verified, and the loader of its adapters.

    Parameters
    ----------
    manifest : Manifest
    encoder : Encoder
    loader : Loader
    """

    manifest: Manifest
    encoder: Encoder
    loader: Loader

    @classmethod
    def of(
        cls,
        base_bundle: Path,
        device: Device,
        trusted: Collection[str] | None,
        adapters: int,
        admit: Callable[[Path, LoadedAdapter], None],
    ) -> Opened:
        """Open an encoder's bundle.

        Parameters
        ----------
        base_bundle : Path
        device : Device
        trusted : collection of str, optional
            Public keys in hexadecimal whose bundles are believed; the base's signer when not given.
        adapters : int
            Most adapters kept loaded.
        admit : callable
            Refuses adapters that are made for something else.

        Raises
        ------
        BundleError
            When the bundle is incomplete, altered, signed by somebody else, cannot be run, or is no encoder's.
        """
        with settled(Bundle.open(base_bundle, "base", trusted)) as bundle:
            manifest, encoder = bundle.manifest, Encoder(bundle, device)
        return cls(manifest, encoder, Loader(manifest, trusted, adapters, admit))

    def read(self, rows: Sequence[Sequence[int]], adapter: LoadedAdapter | None) -> tuple[Rows, Rows]:
        """Read texts with an adapter of this base; see :meth:`Encoder.read_all`."""
        self.loader.require_mine(adapter)
        return self.encoder.read_all(rows, adapter)


def _cut(ids: Sequence[int], marks: Sequence[int], most: int, cut: Literal["end", "start"]) -> list[int]:
    """Shorten what stands between the marks before a text and those behind it."""
    if len(ids) <= most:
        return list(ids)
    before = next((i for i, mark in enumerate(marks) if not mark), len(ids))
    behind = next((i for i, mark in enumerate(reversed(marks)) if not mark), 0)
    body, room = list(ids[before : len(ids) - behind]), max(most - before - behind, 0)
    kept = body[:room] if cut == "end" else body[len(body) - room :]
    return [*ids[:before], *kept, *ids[len(ids) - behind :]]
