"""Replies to learn: what a chat model reads, and which of it is a reply that counts.

Messages of one person that follow each other are one turn, joined by line breaks, because templates want turns to
alternate. A reply is a turn of the person's own in the split; its pieces and the end behind them are labelled, nothing
else is. Each is read after what came before it::

    start | you U₁ end | me A₁ end | you U₂ end | me A₂ end         labelled: A₁ end, A₂ end

As what comes later is not seen, replies that have their context in common are read together, each token once: the loss
is that of one example for each reply. An example holds as many as fit. Its first reply has half of the room for
context: whole turns, the oldest left out first, the first one kept being the other's, as on a device; only a last turn
that is too long by itself loses its beginning, never its mark. A reply too long for an example is cut into several,
which overlap by a quarter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from fedpeft.data.marks import Marks, Tokenizer
from fedpeft.data.messages import Excerpt
from fedpeft.data.windows import IGNORED, overlapping, require_room
from fedpeft.errors import DataError


@dataclass(frozen=True, slots=True)
class Turn:
    """What one person said until somebody else spoke.

    Parameters
    ----------
    mine : bool
    before : str
        What was said before the split; context.
    text : str
        What belongs to the split.
    """

    mine: bool
    before: str
    text: str


@dataclass(frozen=True, slots=True)
class Example:
    """A stretch of a conversation and its replies.

    Parameters
    ----------
    ids : list of int
    labels : list of int
        The same where a reply is to be predicted, ``IGNORED`` elsewhere. Not shifted; the last one is a label.
    """

    ids: list[int]
    labels: list[int]


@dataclass(frozen=True, slots=True)
class _Read:
    """A turn as tokens: mark, body with its end, and what follows the end; the labels are of the body."""

    mine: bool
    mark: tuple[int, ...]
    body: list[int]
    labels: list[int]
    after: tuple[int, ...]

    @property
    def counts(self) -> bool:
        return any(label != IGNORED for label in self.labels)

    def __len__(self) -> int:
        return len(self.mark) + len(self.body) + len(self.after)


def turns(excerpt: Excerpt) -> tuple[str | None, list[Turn]]:
    """Join what each person said without a break.

    Parameters
    ----------
    excerpt : Excerpt

    Returns
    -------
    system : str or None
        What the system told the model, when it did.
    turns : list of Turn
        By turns: never two of one person in a row.

    Raises
    ------
    DataError
        When the system speaks later than at the beginning.
    """
    messages, first, system = excerpt.messages, excerpt.first, None
    if messages and messages[0].system:
        system, messages, first = messages[0].text, messages[1:], max(0, first - 1)
    if any(message.system for message in messages):
        raise DataError("messages", "a system's message later on", "one at the beginning of a conversation, or none")
    made, at = [], 0
    for mine, group in groupby(messages, key=lambda message: message.mine):
        texts = [message.text for message in group]
        cut = min(max(first - at, 0), len(texts))
        made.append(Turn(mine, "\n".join(texts[:cut]), "\n".join(texts[cut:])))
        at += len(texts)
    return system, made


def replies(excerpts: Iterable[Excerpt], tokenizer: Tokenizer, length: int) -> list[Example]:
    """Encode one split of one client.

    Parameters
    ----------
    excerpts : iterable of Excerpt
        In order of time.
    tokenizer : Tokenizer
        The base model's.
    length : int
        Most tokens of an example, at least 8.

    Returns
    -------
    list of Example
        Empty when the person wrote nothing here.

    Raises
    ------
    DataError
        When what a context begins with leaves no room in it, or a system speaks to a base that has no mark for it.
    """
    marks = Marks.of(tokenizer)
    made = []
    for excerpt in excerpts:
        system, spoken = turns(excerpt)
        start = marks.start if system is None else marks.told(tokenizer, system)
        require_room(start, length)
        read = [_read(turn, tokenizer, marks) for turn in spoken]
        made += [_scored(ids, labels) for ids, labels in _examples(read, start, length)]
    return [example for example in made if example.ids]


def _read(turn: Turn, tokenizer: Tokenizer, marks: Marks) -> _Read:
    said, before = _pieces(turn, tokenizer)
    mark, end, after = (marks.me, marks.end, marks.after) if turn.mine else (marks.you, marks.end_you, marks.after_you)
    body = [*said, *end]
    labels = [IGNORED] * before + body[before:] if turn.mine and turn.text else [IGNORED] * len(body)
    return _Read(turn.mine, mark, body, labels, after)


def _pieces(turn: Turn, tokenizer: Tokenizer) -> tuple[list[int], int]:
    """Return a turn's pieces, and how many of them are of what was said before the split."""
    parts = [f"{turn.before}\n", turn.text] if turn.before and turn.text else [turn.before or turn.text]
    # A typed "</s>" is four characters, not the mark: nobody's message may forge the end of another's.
    encoded = tokenizer(["".join(parts), *parts], add_special_tokens=False, split_special_tokens=True)["input_ids"]
    whole, first, *rest = (list(pieces) for pieces in encoded)
    if not rest:
        return whole, 0
    # As one text, which is how a device reads it, unless a piece lies across the cut.
    return (whole if whole[: len(first)] == first else first + rest[0]), len(first)


def _examples(read: list[_Read], start: tuple[int, ...], length: int) -> Iterator[tuple[list[int], list[int]]]:
    room, at = length - len(start), 0
    while (reply := next((i for i in range(at, len(read)) if read[i].counts), None)) is not None:
        own = read[reply]
        needed = len(own.mark) + len(own.body)
        if needed > room:
            ids, labels = [*own.mark, *own.body], [IGNORED] * len(own.mark) + own.labels
            yield from overlapping(ids, labels, start, length)
            at = reply + 1
            continue
        ids = [*start, *_context(read[:reply], min(room - needed, room // 2))]
        labels = [IGNORED] * len(ids)
        at = reply
        while at < len(read) and len(ids) + len(read[at].mark) + len(read[at].body) <= length:
            ids += [*read[at].mark, *read[at].body, *read[at].after]
            labels += [IGNORED] * len(read[at].mark) + read[at].labels + [IGNORED] * len(read[at].after)
            at += 1
        yield ids, labels


def _context(earlier: list[_Read], room: int) -> list[int]:
    """Return the last turns that fit, beginning with another person's unless it is the whole."""
    taken, used = len(earlier), 0
    for i in reversed(range(len(earlier))):
        used += len(earlier[i])
        if used > room:
            break
        if i == 0 or not earlier[i].mine:
            taken = i
    if taken == len(earlier) and earlier:
        last = earlier[-1]
        kept = room - len(last.mark) - len(last.after)
        return [*last.mark, *last.body[-kept:], *last.after] if kept > 0 else []
    return [token for turn in earlier[taken:] for token in (*turn.mark, *turn.body, *turn.after)]


def _scored(ids: list[int], labels: list[int]) -> Example:
    """Cut behind the last label; nothing stands before the first token that could predict it."""
    labels = [IGNORED, *labels[1:]]
    last = max((i for i, label in enumerate(labels) if label != IGNORED), default=-1)
    return Example(ids[: last + 1], labels[: last + 1])
