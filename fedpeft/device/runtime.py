"""Complete text and suggest words from one base graph and anybody's adapter, with onnxruntime alone."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from fedpeft.device.bundle import TEMPLATE, TOKENIZER, Bundle
from fedpeft.device.chat import Chat, MarkedChat, Message, TemplateChat
from fedpeft.device.compose import compose
from fedpeft.device.conversation import Conversation
from fedpeft.device.decoder import Decoder
from fedpeft.device.generation import DEFAULT, Generation, Settings
from fedpeft.device.loaded import LoadedAdapter
from fedpeft.device.loader import Loader
from fedpeft.device.manifest import Manifest
from fedpeft.device.memory import Bound, Growing, memory_kind
from fedpeft.device.private import settled
from fedpeft.device.sampling import GREEDY, Sampling
from fedpeft.device.session import Device
from fedpeft.device.suggest import Suggester, Suggestion
from fedpeft.device.text import Text
from fedpeft.device.words import Words


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
    prepacked : Path, optional
        Where to keep the graph as this processor wants it; see :mod:`fedpeft.device.session`.
    mapped : bool
        Compute from the graph's file, a float32 one.
    adapters : int
        Most adapters kept loaded.

    Raises
    ------
    BundleError
        When the bundle is incomplete, altered, signed by somebody else, or cannot be run.
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
        device = Device(threads, mapped, prepacked)
        with settled(Bundle.open(base_bundle, "base", trusted)) as bundle:
            self.manifest: Manifest = bundle.manifest
            self._decoder = Decoder(bundle, device)
            self.text = Text(bundle.read(TOKENIZER), self._decoder.facts)
            self._chat = _chat(bundle, self.text)
        self._loader = Loader(self.manifest, trusted, adapters, lambda _, adapter: self._decoder.require_place(adapter))

    @property
    def context(self) -> int:
        """Most tokens a request can hold."""
        return self._decoder.facts.context

    @property
    def form(self) -> Chat:
        """How the base is shown a conversation."""
        return self._chat

    def load(self, adapter_bundle: Path) -> LoadedAdapter:
        """Verify a person's adapter and map it, or return it as it is when it was loaded before and nothing changed.

        It stays usable as long as it is referenced.

        Raises
        ------
        BundleError
            When the bundle is incomplete, altered, signed by somebody else, or meant for another base.
        """
        return self._loader.load(adapter_bundle)

    def compose(self, adapters: Sequence[LoadedAdapter], weights: Sequence[float]) -> LoadedAdapter:
        """Put several adapters together, exactly; see :mod:`fedpeft.device.compose`."""
        for adapter in adapters:
            self._loader.require_mine(adapter)
        return compose(adapters, weights)

    def warm_up(self) -> None:
        """Run the graph once, so that the first request does not pay for what onnxruntime prepares."""
        _ = self._memory

    def converse(self, adapter: LoadedAdapter | None = None) -> Conversation:
        """Begin a text with somebody's adapter that will go on: what was read of it is not read again."""
        self._loader.require_mine(adapter)
        return Conversation(self._decoder, self.text, self._chat, self._memory(self._decoder, adapter), adapter)

    def suggester(self, adapter: LoadedAdapter | None = None) -> Suggester:
        """Begin to suggest words to somebody who types: what was read before the last keystroke is kept."""
        self._loader.require_mine(adapter)
        return Suggester(self._decoder, self._words, adapter)

    def logits(self, ids: Sequence[int], adapter: LoadedAdapter | None = None) -> NDArray[np.float32]:
        """Score every next token after every token.

        Parameters
        ----------
        ids : sequence of int
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
        self._loader.require_mine(adapter)
        opening = self._decoder.opening(adapter)
        row = np.array([[*opening, *ids]], np.int64)
        scores, _ = self._decoder.read(row, self._decoder.begin(adapter), adapter)
        first: NDArray[np.float32] = scores[0, len(opening) :]
        return first

    def generate(
        self,
        ids: Sequence[int],
        adapter: LoadedAdapter | None = None,
        *,
        tokens: int = DEFAULT.tokens,
        sampling: Sampling = GREEDY,
        seed: int = 0,
        ends: Collection[int] | None = None,
    ) -> Iterator[int]:
        """Continue token by token; see :meth:`Conversation.generate`."""
        return self.converse(adapter).generate(ids, tokens=tokens, sampling=sampling, seed=seed, ends=ends)

    def stream(
        self,
        prompt: str,
        adapter: LoadedAdapter | None = None,
        options: Generation = DEFAULT,
        **settings: Unpack[Settings],
    ) -> Iterator[str]:
        """Say how a message begun with ``prompt`` goes on, in parts; see :meth:`Conversation.stream`."""
        return self.converse(adapter).stream(prompt, options, **settings)

    def complete(
        self,
        prompt: str,
        adapter: LoadedAdapter | None = None,
        options: Generation = DEFAULT,
        **settings: Unpack[Settings],
    ) -> str:
        """Return how a message begun with ``prompt`` goes on; see :meth:`Conversation.stream`."""
        return self.converse(adapter).complete(prompt, options, **settings)

    def chat(
        self,
        messages: Sequence[Message],
        adapter: LoadedAdapter | None = None,
        options: Generation = DEFAULT,
        **settings: Unpack[Settings],
    ) -> str:
        """Return the next message of a conversation; see :meth:`Conversation.reply`, which streams it."""
        return self.converse(adapter).chat(messages, options, **settings)

    def suggest(self, typed: str, adapter: LoadedAdapter | None = None, *, count: int = 3) -> list[Suggestion]:
        """Return the likeliest next words, or completions of the word being typed, best first.

        Whoever asks again after every keystroke has a :meth:`suggester`, which is quicker.

        Raises
        ------
        BundleError
            When the adapter was loaded for another base, or the tokenizer is not byte-level.
        """
        return self.suggester(adapter).suggest(typed, count)

    @cached_property
    def _words(self) -> Words:
        return Words(self.text)

    @cached_property
    def _memory(self) -> type[Bound] | type[Growing]:
        return memory_kind(self._decoder)


def _chat(bundle: Bundle, text: Text) -> Chat:
    if TEMPLATE in bundle.manifest.files:
        return TemplateChat(text, bundle.read(TEMPLATE).decode())
    return MarkedChat(text)
