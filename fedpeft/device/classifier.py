"""Name the class of a text with a person's adapter and their own head, with onnxruntime alone.

The head travels in the adapter: which classes there are, how many and in which order is the adapter's to say. With z
the logits of the classes that are asked for,

    P(class | text) = exp(z_class) / Σ exp(z)
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedpeft.device.encoder import Opened
from fedpeft.device.loaded import LoadedAdapter
from fedpeft.device.manifest import Manifest
from fedpeft.device.sampling import softmax
from fedpeft.device.session import Device
from fedpeft.errors import BundleError, nearest

_HEAD = ("head.weight", "head.bias")


class Scored(NamedTuple):
    """A class and how likely it is."""

    label: str
    probability: float


class Classifier:
    """An encoder on a device. Adapters are switched per request; requests may come from several threads.

    Parameters
    ----------
    base_bundle : Path
    threads : int
        For the arithmetic of one request.
    trusted : collection of str, optional
        Public keys in hexadecimal whose bundles are believed. When not given, whoever signed the base is, and adapters
        must be signed by the same key.
    prepacked : Path, optional
        Where to keep the graph as this processor wants it; see :mod:`fedpeft.device.session`.
    mapped : bool
        Compute from the graph's file, a float32 one.
    adapters : int
        Most adapters kept loaded.

    Raises
    ------
    BundleError
        When the bundle is incomplete, altered, signed by somebody else, cannot be run, or is no encoder's.
    """

    def __init__(
        self,
        base_bundle: Path,
        threads: int = 1,
        trusted: Collection[str] | None = None,
        *,
        prepacked: Path | None = None,
        mapped: bool = False,
        adapters: int = 1024,
    ) -> None:
        self._opened = Opened.of(base_bundle, Device(threads, mapped, prepacked), trusted, adapters, _require_head)
        self.manifest: Manifest = self._opened.manifest

    def load(self, adapter_bundle: Path) -> LoadedAdapter:
        """Verify a person's adapter and map it, or return it as it is when it was loaded before and nothing changed.

        It stays usable as long as it is referenced.

        Raises
        ------
        BundleError
            When the bundle is incomplete, altered, signed by somebody else, meant for another base, or its labels do
            not fit its head.
        """
        return self._opened.loader.load(adapter_bundle)

    def classify(self, text: str, adapter: LoadedAdapter, among: Collection[str] | None = None) -> list[Scored]:
        """Return the classes of a text with their probabilities, likeliest first.

        Parameters
        ----------
        text : str
        adapter : LoadedAdapter
        among : collection of str, optional
            Only these of the adapter's labels are possible; all when not given.

        Raises
        ------
        BundleError
            When the adapter was loaded for another base, or has no such label.
        """
        return self.classify_all([text], adapter, among)[0]

    def classify_all(
        self, texts: Sequence[str], adapter: LoadedAdapter, among: Collection[str] | None = None
    ) -> list[list[Scored]]:
        """Classify several texts, as :meth:`classify`, in their order; those of like length share a pass."""
        labels = adapter.manifest.labels
        if unknown := sorted(set(among or ()) - set(labels)):
            raise BundleError("label", unknown[0], f"one of {adapter.owner}'s", nearest(unknown[0], labels))
        chosen = [i for i, label in enumerate(labels) if among is None or label in among]
        chances = softmax(self.logits(texts, adapter)[:, chosen])
        named = [labels[i] for i in chosen]
        return [
            sorted((Scored(label, float(p)) for label, p in zip(named, row, strict=True)), key=lambda s: -s.probability)
            for row in chances
        ]

    def logits(self, texts: Sequence[str], adapter: LoadedAdapter) -> NDArray[np.float32]:
        """Return every class's score for every text, shape (texts, classes), in the order of the adapter's labels."""
        return self._read(texts, adapter)[0]

    def embed(self, texts: Sequence[str], adapter: LoadedAdapter | None = None) -> NDArray[np.float32]:
        """Return what a head reads of each text, shape (texts, hidden); the bare base's without an adapter."""
        return self._read(texts, adapter)[1]

    def _read(
        self, texts: Sequence[str], adapter: LoadedAdapter | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return self._opened.read(self._opened.encoder.encode(texts), adapter)


def _require_head(folder: Path, adapter: LoadedAdapter) -> None:
    """Refuse an adapter whose head has not one class for each of its labels."""
    labels = len(adapter.manifest.labels)
    for name in _HEAD:
        found = adapter.manifest.tensors.get(name, (0,))[-1]
        if not found or found != labels:
            raise BundleError(f"{folder} {name}", f"{found} classes", f"one per label, {labels}")
