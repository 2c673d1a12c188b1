"""Lines as they are typed: with suggestions at every key on a terminal, as they are from a pipe or a file."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from shutil import get_terminal_size

ENTER, DELETE, TAB, CLEAR, END, ESCAPE = "\r\n", "\x7f\b", "\t", "\x15", "\x04", "\x1b"
PROMPT = "> "
_WORD = re.compile(r"[\w'’]*$")

Hint = Callable[[str], list[str]]


def lines(hint: Hint) -> Generator[str, None, None]:
    """Yield line after line until the input ends; closing it gives the terminal back as it was.

    Parameters
    ----------
    hint : callable
        From what was typed so far to the words that may come next; asked on a terminal only.
    """
    if not sys.stdin.isatty():
        yield from (line.removesuffix("\n") for line in sys.stdin)
        return
    with _key_by_key():
        while (line := _typed(hint)) is not None:
            yield line


def _typed(hint: Hint) -> str | None:
    """Read one line key by key; None when the person ends the input."""
    typed, words = "", hint("")
    while True:
        _show(typed, words)
        key = _key()
        if key in ("", END) and not typed:
            print()
            return None
        if key in ("", *ENTER):
            _show(typed, [])
            print()
            return typed
        typed = _edited(typed, key, words)
        words = [] if typed.startswith(":") else hint(typed.removeprefix("?"))


def _edited(typed: str, key: str, words: list[str]) -> str:
    if key in DELETE:
        return typed[:-1]
    if key == CLEAR:
        return ""
    if key == TAB:
        return f"{_WORD.sub('', typed)}{words[0]} " if words else typed
    return typed + key if key.isprintable() else typed


def _key() -> str:
    """Return the next key, leaving out arrows and the like: an escape, a bracket, and all up to a letter."""
    key = sys.stdin.read(1)
    while key == ESCAPE:
        key = sys.stdin.read(1)
        if key and key in "[O":
            while (key := sys.stdin.read(1)) and not key.isalpha() and key != "~":
                pass
            key = sys.stdin.read(1)
    return key


def _show(typed: str, words: list[str]) -> None:
    """Write the line again, and the suggestions behind the cursor."""
    hint = "  ".join(words)
    room = max(get_terminal_size().columns - len(PROMPT) - len(hint) - 4, 8)
    back = f"   \x1b[2m{hint}\x1b[0m\x1b[{len(hint) + 3}D" if hint else ""
    print(f"\r\x1b[K{PROMPT}{typed[-room:]}{back}", end="", flush=True)


@contextmanager
def _key_by_key() -> Iterator[None]:
    """Let the terminal give every key at once and show none by itself."""
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
