"""A text as it is generated, in parts that will not be taken back.

Two things hold a part back. Pieces of a byte-level tokenizer can end within a character, which shows as U+FFFD until
the rest of it comes. And the end of what is there may be the beginning of a stop text; it is given out when it
turns out to be none. The parts joined are always the text that one would have got at the end.

Of several stop texts, the one that is complete first ends the text, and of those the longest; so the answer does not
depend on how the text was cut into parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_UNFINISHED = "\ufffd"

Decode = Callable[[Sequence[int]], str]


class Speech:
    """Turns tokens into text as they come.

    Parameters
    ----------
    decode : callable
        The text of tokens, as :meth:`fedpeft.device.text.Text.decode`.
    stop : sequence of str
        The text ends before the first of these that is completed; none of them is empty.
    bare : bool
        Drop the spaces the text begins with, because what it continues ends with one.

    Attributes
    ----------
    ended : bool
        Whether a stop text was completed; nothing comes after it.
    """

    def __init__(self, decode: Decode, stop: Sequence[str] = (), *, bare: bool = False) -> None:
        self._letters = _Letters(decode)
        self._stop = stop
        self._bare = bare
        self._held = ""
        self.ended = False

    def push(self, token: int) -> str:
        """Take the next token and return what can be said now, often nothing."""
        return self._say(self._letters.push(token))

    def flush(self) -> str:
        """Return what was held back; no more tokens come."""
        said = self._say(self._letters.flush())
        rest, self._held = self._held, ""
        return said + rest

    def _say(self, part: str) -> str:
        if self.ended:
            return ""
        if self._bare:
            part = part.lstrip(" ")
            self._bare = not part
        self._held += part
        ends = [(at + len(text), at) for text in self._stop if (at := self._held.find(text)) >= 0]
        if ends:
            said, self._held, self.ended = self._held[: min(ends)[1]], "", True
            return said
        safe = len(self._held) - max((_overlap(self._held, text) for text in self._stop), default=0)
        said, self._held = self._held[:safe], self._held[safe:]
        return said


class _Letters:
    """Whole characters of tokens."""

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._shown = 0

    def push(self, token: int) -> str:
        self._ids.append(token)
        part = self.flush()
        if not part or part.endswith(_UNFINISHED):
            return ""
        # Pieces of some tokenizers lose their space at the beginning of a text, so some that are known come first.
        self._ids = self._ids[self._shown :]
        self._shown = len(self._ids)
        return part

    def flush(self) -> str:
        before, text = self._decode(self._ids[: self._shown]), self._decode(self._ids)
        return text[len(before) :]


def _overlap(text: str, stop: str) -> int:
    """Return how many letters at the end of ``text`` may be the beginning of ``stop``."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
