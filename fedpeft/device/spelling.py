"""A text as it is generated, in parts that will not be taken back.

Two things hold a part back. Pieces of a byte-level tokenizer can end within a character, which shows as U+FFFD until
the rest of it comes. And the end of what is there may be the beginning of a stop text; it is given out when it
turns out to be none. The parts joined are always the text that one would have got at the end.

Of several stop texts, the one that is complete first ends the text, and of those the longest; so the answer does not
depend on how the text was cut into parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

_UNFINISHED = "\ufffd"


def spell(tokens: Iterable[int], decode: Callable[[Sequence[int]], str]) -> Iterator[str]:
    """Turn tokens into parts of text that end where characters do.

    Parameters
    ----------
    tokens : iterable of int
    decode : callable
        The text of tokens.

    Yields
    ------
    str
        Not empty.
    """
    ids: list[int] = []
    known = shown = 0
    for token in tokens:
        ids.append(token)
        # Pieces of some tokenizers lose their space at the beginning of a text, so some that are known come first.
        before, text = decode(ids[known:shown]), decode(ids[known:])
        if len(text) > len(before) and not text.endswith(_UNFINISHED):
            yield text[len(before) :]
            known, shown = shown, len(ids)
    if rest := decode(ids[known:])[len(decode(ids[known:shown])) :]:
        yield rest


def without_first_space(parts: Iterable[str]) -> Iterator[str]:
    """Drop the spaces that a text begins with."""
    begun = False
    for part in parts:
        rest = part if begun else part.lstrip(" ")
        begun = begun or bool(rest)
        if rest:
            yield rest


def before_stop(parts: Iterable[str], stop: Sequence[str]) -> Iterator[str]:
    """End a text before the first stop text that is complete.

    Parameters
    ----------
    parts : iterable of str
        Not read any further once a stop text is complete.
    stop : sequence of str
        Not empty ones.

    Yields
    ------
    str
        Not empty; the end of what was read is held back for as long as it may become a stop text.
    """
    held = ""
    for part in parts:
        held += part
        ends = [(at + len(text), at) for text in stop if (at := held.find(text)) >= 0]
        if ends:
            if rest := held[: min(ends)[1]]:
                yield rest
            return
        safe = len(held) - max((_overlap(held, text) for text in stop), default=0)
        if safe:
            yield held[:safe]
            held = held[safe:]
    if held:
        yield held


def _overlap(text: str, stop: str) -> int:
    """Return how many letters at the end of ``text`` may be the beginning of ``stop``."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
