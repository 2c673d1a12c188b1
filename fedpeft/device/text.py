"""Between what a person types and the pieces a base reads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from tokenizers import Tokenizer

from fedpeft.device.manifest import DecoderFacts
from fedpeft.errors import BundleError


class Text:
    """A base's tokenizer, and how its contexts begin.

    Parameters
    ----------
    tokenizer : bytes
        The content of ``tokenizer.json``.
    facts : DecoderFacts
        The ids of the marks.

    Raises
    ------
    BundleError
        When the tokenizer cannot be read.
    """

    def __init__(self, tokenizer: bytes, facts: DecoderFacts) -> None:
        self._tokenizer = read_tokenizer(tokenizer)
        self.facts = facts

    def encode(self, text: str) -> list[int]:
        """Return a text's pieces, without marks."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_marked(self, text: str) -> list[int]:
        """Return the pieces of a text that the base's own template made: marks in it are marks."""
        return list(self._marking.encode(text, add_special_tokens=False).ids)

    @cached_property
    def _marking(self) -> Tokenizer:
        """Another tokenizer: one that was switched back and forth would mix up threads."""
        twin = Tokenizer.from_str(self._tokenizer.to_str())
        twin.encode_special_tokens = False
        return twin

    @cached_property
    def marks(self) -> tuple[str, ...]:
        """How the marks are written."""
        return tuple(token.content for token in self._tokenizer.get_added_tokens_decoder().values() if token.special)

    def written(self, ids: Sequence[int]) -> str:
        """Return how marks are written."""
        return "".join(self._tokenizer.id_to_token(i) or "" for i in ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of pieces; marks say nothing."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def begin(self, text: str, room: int) -> list[int]:
        """Open a message of one's own: ``<s> <me> pieces``.

        A text too long for ``room`` tokens loses its beginning and keeps ``<s>``, as training windows do.

        Raises
        ------
        BundleError
            When there is nothing to begin with: no text, and a tokenizer without marks.
        """
        start = list(self.facts.start)
        ids = [*self.facts.me, *self.encode(text)]
        ids = ids[max(0, len(ids) - (room - len(start))) :]
        if not start and not ids:
            raise BundleError("prompt", text, "some text", "this base's tokenizer has no mark to start from")
        return start + ids

    @cached_property
    def pieces(self) -> tuple[bytes, ...]:
        """The bytes of every piece by id, empty for marks.

        Raises
        ------
        BundleError
            When the tokenizer is not byte-level, so that pieces have no bytes of their own.
        """
        marks = set(self._tokenizer.get_added_tokens_decoder())
        spelled = _alphabet()
        found = []
        for i in range(self.facts.vocabulary):
            token = None if i in marks else self._tokenizer.id_to_token(i)
            try:
                found.append(bytes(spelled[character] for character in token or ""))
            except KeyError as error:
                raise BundleError("tokenizer.json", token, "byte-level pieces", "complete(…) still works") from error
        return tuple(found)

    @cached_property
    def lead(self) -> bytes:
        """What the first word of a message begins with: a space, or nothing in other tokenizers."""
        return b" " if self.pieces[self.encode("a")[0]].startswith(b" ") else b""


def read_tokenizer(content: bytes) -> Tokenizer:
    """Read a ``tokenizer.json`` that neither cuts nor pads, and takes a typed mark for its characters.

    Raises
    ------
    BundleError
        When it cannot be read.
    """
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except Exception as error:  # tokenizers raises nothing narrower
        raise BundleError("tokenizer.json", str(error), "a tokenizer of the tokenizers library") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # "</s>" typed by a person is five characters, not the end of their message.
    tokenizer.encode_special_tokens = True
    return tokenizer


def _alphabet() -> dict[str, int]:
    """Return the byte each character of a byte-level vocabulary stands for.

    Printable Latin-1 bytes stand for themselves, the other 68 for the characters from U+0100 on, in order
    (Radford et al. 2019, the GPT-2 tokenizer).
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}
