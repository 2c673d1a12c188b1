"""Where words begin and end among a vocabulary's pieces."""

from __future__ import annotations

import re
from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

from fedpeft.device.text import Text

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_CONTINUES = re.compile(r"['’]?[^\W_]+|’")
_TYPED = re.compile(r"[^\W_](?:[^\W_]|['’])*$")


class Words:
    """What each piece can do to a word.

    Parameters
    ----------
    text : Text

    Attributes
    ----------
    ends : ndarray of bool, shape (vocabulary,)
        Pieces that a word is over before: a space, punctuation, the end of the message.

    Raises
    ------
    BundleError
        When the tokenizer is not byte-level.
    """

    def __init__(self, text: Text) -> None:
        self.text = text
        self._continues = np.array([_continues(piece) for piece in text.pieces])
        self.ends = ~self._continues
        self.ends[[i for i, piece in enumerate(text.pieces) if not piece]] = False
        self.ends[list(text.facts.end)] = True
        # In the order of their bytes, pieces that begin alike lie side by side.
        self._order = sorted((piece, i) for i, piece in enumerate(text.pieces) if piece)
        self._grows = np.array([_continues(piece.lstrip()) for piece in text.pieces])

    def following(self, spelled: bytes, target: bytes) -> NDArray[np.bool_]:
        """Return which pieces may come after ``spelled``, shape (vocabulary,).

        Until ``target`` is spelled: those that spell more of it, or the rest of it and more of the same word.
        """
        rest = target[len(spelled) :]
        if not rest:
            return self._continues
        allowed = np.zeros(len(self.ends), np.bool_)
        for n in range(1, len(rest) + 1):
            allowed[self._between(rest[:n], rest[:n] + b"\0")] = True
        # After ``rest`` no piece goes on with the byte 0xff, which UTF-8 does not have.
        longer = self._between(rest + b"\0", rest + b"\xff")
        allowed[longer] = self._grows[longer]
        return allowed

    def _between(self, first: bytes, last: bytes) -> list[int]:
        """Return the pieces whose bytes are ``first`` or after it, and before ``last``."""
        low, high = (bisect_left(self._order, (piece, -1)) for piece in (first, last))
        return [i for _, i in self._order[low:high]]

    def divide(self, typed: str) -> tuple[str, bytes]:
        """Cut a text before its last word.

        Returns
        -------
        before : str
            Whole words.
        target : bytes
            What the next pieces must spell first: the space before the word, and its letters typed so far.
        """
        match = _TYPED.search(typed)
        letters = match.group() if match else ""
        whole = typed[: len(typed) - len(letters)]
        before = whole.rstrip()
        if not before:
            return before, self.text.lead + letters.encode()
        attached = letters and before == whole  # as in "(so"
        return before, (b"" if attached else b" ") + letters.encode()


def finished(spelled: bytes, target: bytes) -> str:
    """Return the word that was spelled, or nothing if it is not a whole one beginning with ``target``."""
    try:
        word = spelled.decode().strip()
    except UnicodeDecodeError:
        return ""
    return word if spelled.startswith(target) and _WORD.fullmatch(word) else ""


def _continues(piece: bytes) -> bool:
    """Say whether a word can go on with this piece; a part of a character counts as one of a letter."""
    try:
        return _CONTINUES.fullmatch(piece.decode()) is not None
    except UnicodeDecodeError:
        return True
