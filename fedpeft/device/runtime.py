"""Complete text and suggest words from one base graph and anybody's adapter, with onnxruntime alone."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedpeft.device.bundle import TOKENIZER, Bundle
from fedpeft.device.decoder import Decoder
from fedpeft.device.loaded import LoadedAdapter, load_adapter
from fedpeft.device.manifest import Manifest
from fedpeft.device.sampling import GREEDY, Sampling
from fedpeft.device.suggest import Suggestion, suggest
from fedpeft.device.text import Text
from fedpeft.device.words import Words
from fedpeft.errors import BundleError, FedpeftError


class Runtime:
    """A base on a device. Adapters are switched per request; requests may come from several threads.

    Parameters
    ----------
    base_bundle : Path
    threads : int
        For the arithmetic of one request.
    trusted : collection of str, optional
        Public keys in hexadecimal whose bundles are believed. When not given, whoever signed the base is, and adapters
        must be signed by the same key.

    Raises
    ------
    BundleError
        When the bundle is incomplete, altered, signed by somebody else, or cannot be run.
    """

    def __init__(self, base_bundle: Path, threads: int = 1, trusted: Collection[str] | None = None) -> None:
        bundle = Bundle.open(base_bundle, "base", trusted)
        bundle.verify()
        self.manifest: Manifest = bundle.manifest
        self._trusted = frozenset(trusted if trusted is not None else [bundle.manifest.signer])
        self._decoder = Decoder(bundle, threads)
        self.text = Text(bundle.read(TOKENIZER), self._decoder.facts)

    @property
    def context(self) -> int:
        """Most tokens a request can hold."""
        return self._decoder.facts.context

    def load(self, adapter_bundle: Path) -> LoadedAdapter:
        """Verify a person's adapter and map it; it stays usable as long as it is referenced.

        Raises
        ------
        BundleError
            When the bundle is incomplete, altered, signed by somebody else, or meant for another base.
        """
        return load_adapter(adapter_bundle, self.manifest.base_fingerprint, self.manifest.tensors, self._trusted)

    def logits(self, ids: Sequence[int], adapter: LoadedAdapter | None = None) -> NDArray[np.float32]:
        """Score every next token after every token.

        Parameters
        ----------
        ids : sequence of int, at most :attr:`context`
        adapter : LoadedAdapter, optional
            The bare base when not given.

        Returns
        -------
        ndarray of float32, shape (len(ids), vocabulary)

        Raises
        ------
        BundleError
            When there are too many tokens, or the adapter was loaded for another base.
        """
        self._require_mine(adapter)
        row = np.array([list(ids)], np.int64)
        scores, _ = self._decoder.read(row, self._decoder.begin(), adapter)
        first: NDArray[np.float32] = scores[0]
        return first

    def generate(
        self,
        ids: Sequence[int],
        adapter: LoadedAdapter | None = None,
        *,
        tokens: int = 32,
        sampling: Sampling = GREEDY,
        seed: int = 0,
        ends: Collection[int] | None = None,
    ) -> Iterator[int]:
        """Continue token by token, reading each token once.

        Parameters
        ----------
        ids : sequence of int
            Begun as :meth:`Text.begin` does. If there are more than the context holds, the first are dropped.
        adapter : LoadedAdapter, optional
        tokens : int
            Stop after this many, or when the context is full.
        sampling : Sampling
        seed : int
            Of the draws, when the temperature is not 0.
        ends : collection of int, optional
            Stop before one of these; the base's end marks when not given.

        Yields
        ------
        int

        Raises
        ------
        BundleError
            When the adapter was loaded for another base.
        """
        self._require_mine(adapter)
        stop = self._decoder.facts.end if ends is None else ends
        random = np.random.default_rng(seed)
        new, cache = list(ids)[-self.context :], self._decoder.begin()
        for _ in range(tokens):
            if cache.length + len(new) > self.context:
                return
            logits, cache = self._decoder.read(np.array([new], np.int64), cache, adapter)
            token = sampling.choose(logits[0, -1], random)
            if token in stop:
                return
            yield token
            new = [token]

    def complete(
        self,
        prompt: str,
        adapter: LoadedAdapter | None = None,
        *,
        tokens: int = 32,
        temperature: float = 0.0,
        top_k: int = 0,
        seed: int = 0,
    ) -> str:
        """Return how a message begun with ``prompt`` goes on, to its end or for ``tokens`` tokens.

        A prompt that is too long loses its beginning, but at least half of the context stays for the prompt.

        Raises
        ------
        FedpeftError
            For a negative temperature or number.
        BundleError
            When the adapter was loaded for another base.
        """
        if tokens < 1:
            raise FedpeftError("tokens", tokens, "1 or more")
        # Pieces carry the space before them: one at the end of the prompt would be a piece of its own.
        typed = prompt.rstrip()
        ids = self.text.begin(typed, room=self.context - min(tokens, self.context // 2))
        sampling = Sampling(temperature, top_k)
        made = list(self.generate(ids, adapter, tokens=tokens, sampling=sampling, seed=seed))
        continuation = self.text.decode(made)
        return continuation if typed and typed == prompt else continuation.lstrip(" ")

    def suggest(self, typed: str, adapter: LoadedAdapter | None = None, *, count: int = 3) -> list[Suggestion]:
        """Return the likeliest next words, or completions of the word being typed, best first.

        Raises
        ------
        BundleError
            When the adapter was loaded for another base, or the tokenizer is not byte-level.
        """
        self._require_mine(adapter)
        return suggest(typed, self._decoder, self._words, adapter, count)

    @cached_property
    def _words(self) -> Words:
        return Words(self.text)

    def _require_mine(self, adapter: LoadedAdapter | None) -> None:
        mine = self.manifest.base_fingerprint
        if adapter is not None and adapter.manifest.base_fingerprint != mine:
            raise BundleError(f"adapter of {adapter.owner}", "another base's", f"one of the base {mine[:12]}…")
