"""Public text: conversations that no client took part in, or a file; and rows of it that fill a window.

The text is one stream, cut into rows that each begin as a context of the base does. It is nobody's, so every piece of
it may be read and predicted by everybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedpeft.data.keyboard import Turn, perspective, public_conversations
from fedpeft.data.marks import Marks, Tokenizer
from fedpeft.data.messages import Excerpt
from fedpeft.data.windows import pieces, require_room
from fedpeft.errors import DataError

PUBLIC = "public"


def read_public(text: str) -> list[tuple[Turn, ...]]:
    """Return public text as conversations.

    Parameters
    ----------
    text : str
        ``public``, the conversations beside the builtin clients'; or the path of a text file, each line of which is
        one text.

    Raises
    ------
    DataError
        When the file cannot be read or is empty.
    """
    if text == PUBLIC:
        return public_conversations()
    try:
        lines = Path(text).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("--text", text, f"{PUBLIC!r} or a readable text file", str(error)) from error
    found: list[tuple[Turn, ...]] = [(("", line.strip(), 0.0),) for line in lines if line.strip()]
    if not found:
        raise DataError("--text", text, "a file with text in it")
    return found


def rows_of(
    conversations: Sequence[tuple[Turn, ...]],
    tokenizer: Tokenizer,
    length: int,
    rng: np.random.Generator,
    most: int | None = None,
) -> NDArray[np.int64]:
    """Read each conversation from one speaker's device and cut the stream into rows.

    Parameters
    ----------
    conversations : sequence of tuple of Turn
    tokenizer : Tokenizer
    length : int
        Tokens of a row.
    rng : numpy Generator
        Decides the order, and whose device.
    most : int, optional
        Rows after which no more is read; all by default.

    Returns
    -------
    ndarray of int64, shape (rows, length)
        What is left of the stream after the last whole row is not used.

    Raises
    ------
    DataError
        When what a context begins with leaves no room in a row.
    """
    marks = Marks.of(tokenizer)
    require_room(marks.start, length)
    body = length - len(marks.start)
    stream: list[int] = []
    for index in rng.permutation(len(conversations)):
        if most is not None and len(stream) >= most * body:
            break
        turns = conversations[index]
        if turns:
            speakers = sorted({who for who, _, _ in turns})
            view = perspective(turns, speakers[rng.integers(len(speakers))])
            tokens, _ = pieces(Excerpt(view), tokenizer, marks)
            stream += tokens
    count = len(stream) // body if most is None else min(most, len(stream) // body)
    rows = np.array(stream[: count * body], np.int64).reshape(count, body)
    return np.concatenate([np.tile(np.array(marks.start, np.int64), (count, 1)), rows], axis=1)
