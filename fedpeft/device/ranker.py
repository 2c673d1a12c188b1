"""Rank what a person could reply, with their adapter, with onnxruntime alone.

The context and each reply are read by the encoder; a reply's score is the scaled cosine of the two vectors
(:mod:`fedpeft.device.similarity`), and over the replies that are offered

    P(reply | context) = exp(s_reply) / Σ exp(s)
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from fedpeft.device.encoder import Opened
from fedpeft.device.loaded import LoadedAdapter
from fedpeft.device.manifest import Manifest
from fedpeft.device.sampling import softmax
from fedpeft.device.session import Device
from fedpeft.device.similarity import scaled_cosines
from fedpeft.errors import BundleError


class Ranked(NamedTuple):
    """A reply, how likely it is among those offered, and its score."""

    reply: str
    probability: float
    score: float


class Ranker:
    """An encoder that ranks replies. Adapters are switched per request; requests may come from several threads.

    Parameters
    ----------
    base_bundle : Path
    threads : int
        For the arithmetic of one request.
    trusted : collection of str, optional
        Public keys in hexadecimal whose bundles are believed; the base's signer when not given.
    prepacked : Path, optional
        Where to keep the graph as this processor wants it; see :mod:`fedpeft.device.session`.
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
        adapters: int = 1024,
    ) -> None:
        device = Device(threads, mapped=False, prepacked=prepacked)
        self._opened = Opened.of(base_bundle, device, trusted, adapters, _require_context)
        self.manifest: Manifest = self._opened.manifest

    def load(self, adapter_bundle: Path) -> LoadedAdapter:
        """Verify a person's adapter and map it, or return it as it is when it was loaded before and nothing changed.

        Raises
        ------
        BundleError
            When the bundle is incomplete, altered, signed by somebody else, meant for another base, or does not rank.
        """
        return self._opened.loader.load(adapter_bundle)

    def rank(
        self, context: str | Sequence[str], replies: Sequence[str], adapter: LoadedAdapter | None = None
    ) -> list[Ranked]:
        """Return the replies, likeliest first.

        Parameters
        ----------
        context : str or sequence of str
            What was said before, a message or several in order of time. A long one loses its beginning.
        replies : sequence of str
            At least one; a long one loses its end.
        adapter : LoadedAdapter, optional
            The bare encoder ranks without.

        Raises
        ------
        BundleError
            When there is nothing to rank, or the adapter was loaded for another base.
        """
        if not replies:
            raise BundleError("replies", 0, "at least one to rank")
        said = context if isinstance(context, str) else "\n".join(context)
        length = adapter.manifest.context if adapter is not None else None
        encoder = self._opened.encoder
        rows = encoder.encode([said], length, cut="start") + encoder.encode(replies, length)
        _, pooled = self._opened.read(rows, adapter)
        scores = scaled_cosines(pooled[0], pooled[1:])
        made = map(Ranked, replies, map(float, softmax(scores)), map(float, scores))
        return sorted(made, key=lambda one: -one.score)


def _require_context(folder: Path, adapter: LoadedAdapter) -> None:
    """Refuse an adapter that was trained for something else."""
    if adapter.manifest.context is None:
        remedy = "name classes with it: `fedpeft classify`" if adapter.manifest.labels else "export its run again"
        raise BundleError(f"{folder} context", None, "how much of a conversation an adapter for replies reads", remedy)
