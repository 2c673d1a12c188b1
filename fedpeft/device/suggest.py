"""The next three words, by a beam search over pieces that ends where a word does.

With c the text before the word, pieces p1 … pn, and E the pieces that cannot continue a word (a space,
punctuation, the end of the message):

    P(word | c) = sum over spellings p1 … pn of the word:  prod_i P(p_i | c, p_<i) * P(E | c, p_1 … p_n)

While a word is being typed, only pieces that agree with its letters so far are followed, whatever way the
tokenizer would have cut them ("token healing"). The search ends when no unfinished word is likelier than the
last one to be returned.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import nlargest

import numpy as np
from numpy.typing import NDArray

from fedpeft.device.decoder import Decoder
from fedpeft.device.loaded import LoadedAdapter
from fedpeft.device.sampling import softmax
from fedpeft.device.words import Words, finished

WIDTH = 12
"""Unfinished words followed at a time, one row of a batch each."""
LONGEST = 48
"""Bytes of a word being typed; nobody wants completions of a longer one."""
_TAIL = 8
"""Pieces a word may go on for after its typed letters."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A word and how likely it is.

    Parameters
    ----------
    word : str
    probability : float
        Of this word after the words before it. The letters typed so far choose among the words, they do not
        change the probability.
    """

    word: str
    probability: float


@dataclass(frozen=True, slots=True)
class _Beam:
    """An unfinished word: its bytes so far with the space before it, and their probability."""

    spelled: bytes
    probability: float


def suggest(typed: str, decoder: Decoder, words: Words, adapter: LoadedAdapter | None, count: int) -> list[Suggestion]:
    """Suggest words.

    Parameters
    ----------
    typed : str
        If it ends within a word, the suggestions begin with that word's letters.
    decoder : Decoder
    words : Words
    adapter : LoadedAdapter, optional
    count : int

    Returns
    -------
    list of Suggestion
        Distinct words, best first; fewer than ``count`` only when the word being typed is longer than
        :data:`LONGEST`.
    """
    before, target = words.divide(typed)
    if len(target) > LONGEST:
        return []
    depth = min(len(target) + _TAIL, decoder.facts.context // 2)
    ids = words.text.begin(before, room=decoder.facts.context - depth)
    logits, cache = decoder.read(np.array([ids], np.int64), decoder.begin(), adapter)
    beams = [_Beam(b"", 1.0)]
    found: dict[str, float] = {}
    for _ in range(depth):
        scores = softmax(logits[:, -1])
        allowed = np.stack([words.following(beam.spelled, target) for beam in beams])
        chances = np.array([[beam.probability] for beam in beams]) * scores * allowed
        parents, chosen = _best(chances)
        if not len(chosen) or chances[parents[0], chosen[0]] <= _least(found, count):
            break
        beams = [
            _Beam(beams[parent].spelled + words.text.pieces[piece], float(chances[parent, piece]))
            for parent, piece in zip(parents, chosen, strict=True)
        ]
        logits, cache = decoder.read(chosen[:, None], cache.rows(parents), adapter)
        over = softmax(logits[:, -1])[:, words.ends].sum(-1)
        for beam, end in zip(beams, over, strict=True):
            if word := finished(beam.spelled, target):
                found[word] = found.get(word, 0.0) + beam.probability * float(end)
    best = nlargest(count, found.items(), key=lambda item: item[1])
    return [Suggestion(word, probability) for word, probability in best]


def _least(found: dict[str, float], count: int) -> float:
    """Return the probability a word must exceed to be among the best ``count``."""
    return nlargest(count, found.values())[-1] if len(found) >= count else 0.0


def _best(chances: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows and columns of the :data:`WIDTH` largest chances that are not zero, best first."""
    flat = chances.ravel()
    top = np.argsort(-flat, kind="stable")[:WIDTH]
    rows, columns = np.divmod(top[flat[top] > 0], chances.shape[1])
    return rows, columns
