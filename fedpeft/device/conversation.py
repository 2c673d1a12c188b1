"""A text with one person's adapter that goes on, is corrected and goes on again, each token being read once.

With t the tokens read and u those of the next request, the past of their longest common beginning stays:

    keep n = max { i : t_1..t_i = u_1..u_i, i < |u| },  read u_{n+1} … u_m

A reply, the next message and the reply to it cost as much as their own tokens, not as the whole conversation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from threading import Lock
from typing import Unpack

import numpy as np

from fedpeft.device.chat import Chat, Message
from fedpeft.device.decoder import Decoder, Logits
from fedpeft.device.generation import DEFAULT, Generation, Settings
from fedpeft.device.loaded import LoadedAdapter
from fedpeft.device.memory import Memory
from fedpeft.device.sampling import GREEDY, Sampling
from fedpeft.device.stream import Speech
from fedpeft.device.text import Text
from fedpeft.errors import BundleError

CHUNK = 128
"""Tokens read in one run: the scores after each of them are made, and are memory, though only the last are used."""


class Conversation:
    """What one person and the base have said so far; one request at a time.

    Parameters
    ----------
    decoder : Decoder
    text : Text
    chat : Chat
    memory : Memory
        That has read nothing.
    adapter : LoadedAdapter, optional
        The same as the memory's.

    Attributes
    ----------
    reused : int
        Tokens that the last run did not read again.
    """

    def __init__(
        self, decoder: Decoder, text: Text, chat: Chat, memory: Memory, adapter: LoadedAdapter | None = None
    ) -> None:
        self.adapter = adapter
        self.reused = 0
        self._decoder, self._text, self._chat, self._memory = decoder, text, chat, memory
        self._opening = decoder.opening(adapter)
        self._before = memory.length
        self._read: list[int] = []
        self._busy = Lock()

    @property
    def room(self) -> int:
        """Most tokens of text that a request can hold."""
        return self._decoder.room(self.adapter)

    def generate(
        self,
        ids: Sequence[int],
        *,
        tokens: int = DEFAULT.tokens,
        sampling: Sampling = GREEDY,
        seed: int = 0,
        ends: Collection[int] | None = None,
    ) -> Iterator[int]:
        """Continue token by token.

        Parameters
        ----------
        ids : sequence of int
            Begun as :meth:`Text.begin` does. If there are more than the context holds, the first are dropped.
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
            When an earlier generation of this conversation is not over, or there are no tokens.
        """
        stop = frozenset(self._decoder.facts.end if ends is None else ends)
        random = np.random.default_rng(seed)
        text = list(ids)[-self.room :]
        if not self._busy.acquire(blocking=False):
            raise BundleError("conversation", "a generation under way", "one that is over", "read it to its end")
        try:
            for _ in range(tokens):
                if len(text) > self.room:
                    return
                token = sampling.choose(self._scores(text), random, text)
                if token in stop:
                    return
                text.append(token)
                yield token
        finally:
            self._busy.release()

    def stream(self, prompt: str, options: Generation = DEFAULT, **settings: Unpack[Settings]) -> Iterator[str]:
        """Say how a message begun with ``prompt`` goes on, in parts, as they are generated.

        A prompt that is too long loses its beginning, but at least half of the context stays for the prompt.

        Parameters
        ----------
        prompt : str
        options : Generation
        **settings
            Its fields, one by one.

        Yields
        ------
        str
            Whole characters; never a stop text or part of one.

        Raises
        ------
        FedpeftError
            For an option without meaning, when this is called.
        """
        chosen = options.but(settings)
        # Pieces carry the space before them: one at the end of the prompt would be a piece of its own.
        typed = prompt.rstrip()
        ids = self._text.begin(typed, room=self._left(chosen))
        return self._speak(ids, chosen, Speech(self._text.decode, chosen.stop, bare=not typed or typed != prompt))

    def complete(self, prompt: str, options: Generation = DEFAULT, **settings: Unpack[Settings]) -> str:
        """Return how a message begun with ``prompt`` goes on; see :meth:`stream`."""
        return "".join(self.stream(prompt, options, **settings))

    def reply(
        self, messages: Sequence[Message], options: Generation = DEFAULT, **settings: Unpack[Settings]
    ) -> Iterator[str]:
        """Say the next message of a conversation, in parts, as they are generated.

        If it is too long, its oldest messages are forgotten, but not what the system said.

        Parameters
        ----------
        messages : sequence of Message
        options : Generation
        **settings
            Its fields, one by one.

        Yields
        ------
        str

        Raises
        ------
        FedpeftError
            For an option without meaning, or messages that the base has no form for, when this is called.
        """
        chosen = options.but(settings)
        ids = self._chat.begin(messages, room=self._left(chosen))
        return self._speak(ids, chosen, Speech(self._text.decode, chosen.stop, bare=True))

    def chat(self, messages: Sequence[Message], options: Generation = DEFAULT, **settings: Unpack[Settings]) -> str:
        """Return the next message of a conversation; see :meth:`reply`."""
        return "".join(self.reply(messages, options, **settings))

    def _left(self, options: Generation) -> int:
        return self.room - min(options.tokens, self.room // 2)

    def _speak(self, ids: Sequence[int], options: Generation, speech: Speech) -> Iterator[str]:
        made = self.generate(ids, tokens=options.tokens, sampling=options, seed=options.seed)
        for token in made:
            if part := speech.push(token):
                yield part
            if speech.ended:
                return
        if part := speech.flush():
            yield part

    def _scores(self, text: Sequence[int]) -> Logits:
        """Return the scores of what follows a text, reading what of it is new; shape (vocabulary,)."""
        whole = [*self._opening, *text]
        if not whole:
            raise BundleError("tokens", "none", "at least one")
        self.reused = min(_common(self._read, whole), len(whole) - 1)
        del self._read[self.reused :]
        self._memory.rewind(self._before + self.reused)
        return read_in_chunks(whole[self.reused :], self._memory.read, self._read.extend)


def read_in_chunks(
    ids: Sequence[int], read: Callable[[np.ndarray], Logits], after: Callable[[Sequence[int]], object]
) -> Logits:
    """Read tokens a chunk at a time and return the scores after the last."""
    for first in range(0, len(ids), CHUNK):
        chunk = ids[first : first + CHUNK]
        logits = read(np.array(chunk, np.int64))
        after(chunk)
    last: Logits = logits[-1]
    return last


def _common(one: Sequence[int], two: Sequence[int]) -> int:
    if one == two[: len(one)]:
        return len(one)
    for i, (a, b) in enumerate(zip(one, two, strict=False)):
        if a != b:
            return i
    return min(len(one), len(two))
