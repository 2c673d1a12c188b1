"""The next three words, by a beam search over pieces that ends where a word does.

With c the text before the word, pieces p1 … pn, and E the pieces that cannot continue a word (a space,
punctuation, the end of the message):

    P(word | c) = sum over spellings p1 … pn of the word:  prod_i P(p_i | c, p_<i) * P(E | c, p_1 … p_n)

While a word is being typed, only pieces that agree with its letters so far are followed, whatever way the
tokenizer would have cut them ("token healing"). The search ends when no unfinished word is likelier than the
last one to be returned.

Between keystrokes the text before the word hardly changes: a :class:`Suggester` keeps what it has read of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import nlargest
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from fedpeft.device.decoder import Cache, Decoder
from fedpeft.device.loaded import LoadedAdapter
from fedpeft.device.sampling import Scores, softmax
from fedpeft.device.words import Words, finished

WIDTH = 12
"""Unfinished words followed at a time, one row of a batch each."""
LONGEST = 48
"""Bytes of a word being typed; nobody wants completions of a longer one."""
_TAIL = 8
"""Pieces a word may go on for after its typed letters."""
_STRIDE = 32
"""Tokens by which the beginning of a long text is dropped: were it one by one, every keystroke would read it all."""


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


class Suggester:
    """Suggests words to one person while they type. Several threads may ask; one is answered at a time.

    Parameters
    ----------
    decoder : Decoder
    words : Words
    adapter : LoadedAdapter, optional
    """

    def __init__(self, decoder: Decoder, words: Words, adapter: LoadedAdapter | None = None) -> None:
        self._decoder, self._words, self._adapter = decoder, words, adapter
        self._opening = decoder.opening(adapter)
        self._start = decoder.begin(adapter)
        self._read: list[int] = []
        self._cache, self._chances = self._start, np.empty((1, 0))
        self._lock = Lock()

    def suggest(self, typed: str, count: int = 3) -> list[Suggestion]:
        """Suggest words.

        Parameters
        ----------
        typed : str
            If it ends within a word, the suggestions begin with that word's letters.
        count : int

        Returns
        -------
        list of Suggestion
            Distinct words, best first; fewer than ``count`` only when the word being typed is longer than
            :data:`LONGEST`.
        """
        before, target = self._words.divide(typed)
        if len(target) > LONGEST:
            return []
        with self._lock:
            room = self._decoder.room(self._adapter)
            depth = min(len(target) + _TAIL, room // 2)
            self._know([*self._opening, *self._begin(before, room - depth)])
            found = self._search(target, depth, count)
        best = nlargest(count, found.items(), key=lambda item: item[1])
        return [Suggestion(word, probability) for word, probability in best]

    def _begin(self, before: str, room: int) -> list[int]:
        """Return a text's tokens; of one that is too long, some more than needed are dropped."""
        text = self._words.text
        whole = len(text.begin(before, room=1 << 30))
        if whole <= room:
            return text.begin(before, room)
        return text.begin(before, room=whole - -(-(whole - room) // _STRIDE) * _STRIDE)

    def _know(self, ids: list[int]) -> None:
        """Read what of a text is new, and keep its scores."""
        known = self._read
        same = next((i for i, (a, b) in enumerate(zip(known, ids, strict=False)) if a != b), min(len(known), len(ids)))
        if same == len(ids) == len(known):
            return
        kept = min(same, len(ids) - 1)
        cache = self._cache.first(self._start.length + kept) if kept else self._start
        # Until it is read, nothing is known: a failure leaves no half-read text.
        self._read = []
        logits, self._cache = self._decoder.read(np.array([ids[kept:]], np.int64), cache, self._adapter)
        self._chances = softmax(logits[:, -1])
        self._read = ids

    def _search(self, target: bytes, depth: int, count: int) -> dict[str, float]:
        words, cache, scores = self._words, self._cache, self._chances
        beams = [_Beam(b"", 1.0)]
        found: dict[str, float] = {}
        for _ in range(depth):
            allowed = np.stack([words.following(beam.spelled, target) for beam in beams])
            chances = np.array([[beam.probability] for beam in beams]) * scores * allowed
            parents, chosen = _best(chances)
            least = _least(found, count)
            likely = chances[parents, chosen] > least
            parents, chosen = parents[likely], chosen[likely]
            if not len(chosen):
                break
            beams = [
                _Beam(beams[parent].spelled + words.text.pieces[piece], float(chances[parent, piece]))
                for parent, piece in zip(parents, chosen, strict=True)
            ]
            scores, cache = self._extend(cache, parents, chosen)
            over = scores[:, words.ends].sum(-1)
            for beam, end in zip(beams, over, strict=True):
                if word := finished(beam.spelled, target):
                    found[word] = found.get(word, 0.0) + beam.probability * float(end)
        return found

    def _extend(self, cache: Cache, parents: NDArray[np.int64], pieces: NDArray[np.int64]) -> tuple[Scores, Cache]:
        logits, longer = self._decoder.read(pieces[:, None], cache.rows(parents), self._adapter)
        return softmax(logits[:, -1]), longer


def _least(found: dict[str, float], count: int) -> float:
    """Return the probability a word must exceed to be among the best ``count``."""
    return nlargest(count, found.values())[-1] if len(found) >= count else 0.0


def _best(chances: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows and columns of the :data:`WIDTH` largest chances that are not zero, best first."""
    flat = chances.ravel()
    least = np.partition(flat, -WIDTH)[-WIDTH] if flat.size > WIDTH else 0.0
    likely = np.flatnonzero((flat >= least) & (flat > 0))
    top = likely[np.argsort(-flat[likely], kind="stable")[:WIDTH]]
    rows, columns = np.divmod(top, chances.shape[1])
    return rows, columns
