"""How a base writes the limits of a message, read from its tokenizer.

A tokenizer with ``<me>`` and ``<you>`` says so itself. One with a chat template is asked to write four short messages
by turns, and what it puts around them are the marks::

    start you U₁ end_you after_you me A₁ end after you U₂ end_you after_you me A₂ end after

The person whose data it is takes the assistant's part: the adapter learns to write as they do. Only ``end`` is learnt
with a message's own pieces; what comes after it, such as ChatML's line break, is not for a model to decide.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from os.path import commonprefix
from typing import Any, Protocol

from fedpeft.errors import BaseError, DataError

PAD, START, END, ME, YOU = "<pad>", "<s>", "</s>", "<me>", "<you>"
_PROBES = ("QzU1", "QzA1", "QzU2", "QzA2")
_ROLES = ("user", "assistant") * 2
_TOLD = "QzS1"
"""Contents that no template writes of its own accord."""
_SOME_DAY = "{% macro strftime_now(form) %}26 Jul 2024{% endmacro %}"
"""Before a template that tells the day, or its marks would be others tomorrow."""


class Tokenizer(Protocol):
    """What reading marks and windows needs of a Hugging Face tokenizer."""

    bos_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None

    def convert_tokens_to_ids(self, tokens: str) -> Any:
        """Return the id of one token."""

    def __call__(self, text: list[str], *, add_special_tokens: bool, split_special_tokens: bool) -> Any:
        """Encode a batch of texts."""


@dataclass(frozen=True, slots=True)
class Marks:
    """The tokens around messages.

    Parameters
    ----------
    start : tuple of int
        Before the first message of a window; a template's default system message belongs to it.
    me, you : tuple of int
        Before the person's own and before other people's messages.
    end, end_you : tuple of int
        Behind them; a message is over.
    pad : int
        Fills windows up.
    after, after_you : tuple of int
        Behind the ends, not learnt.
    system : tuple of two tuples of int, optional
        Around what a system says, instead of ``start``; None where the base has no form for that.
    """

    start: tuple[int, ...]
    me: tuple[int, ...]
    you: tuple[int, ...]
    end: tuple[int, ...]
    end_you: tuple[int, ...]
    pad: int
    after: tuple[int, ...] = ()
    after_you: tuple[int, ...] = ()
    system: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    def told(self, tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
        """Return what a conversation begins with whose system says something.

        Raises
        ------
        DataError
            When the base has no form for that.
        """
        if self.system is None:
            raise DataError("messages", "a system's", "a user's and an assistant's", "this base has no mark for it")
        pieces = tokenizer([text], add_special_tokens=False, split_special_tokens=True)["input_ids"][0]
        return (*self.system[0], *pieces, *self.system[1])

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Marks:
        """Read the marks of a tokenizer.

        Raises
        ------
        BaseError
            When its chat template cannot write a conversation by turns.
        """
        end = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (end or (0,))[0]
        me, you = _single(tokenizer, ME), _single(tokenizer, YOU)
        if not me and getattr(tokenizer, "chat_template", None):
            return _from_template(tokenizer, pad)
        start = () if tokenizer.bos_token_id is None else (tokenizer.bos_token_id,)
        return cls(start, me, you, end, end, pad)


def _single(tokenizer: Tokenizer, token: str) -> tuple[int, ...]:
    found = tokenizer.convert_tokens_to_ids(token)
    unknown = getattr(tokenizer, "unk_token_id", None)
    return () if found is None or found == unknown else (int(found),)


def _from_template(tokenizer: Any, pad: int) -> Marks:
    try:
        written = _written(tokenizer, zip(_ROLES, _PROBES, strict=True))
    except Exception as error:  # templates raise classes of Jinja's and of their own
        raise BaseError("base chat template", str(error)[:80], "one that writes user and assistant by turns") from error
    parts = []
    for probe in _PROBES:
        part, found, written = written.partition(probe)
        if not found:
            raise BaseError("base chat template", f"no {probe}", "one that writes what was said, in order")
        parts.append(part)
    first, answer, between, _ = parts
    closing = _common(between, written)  # of both answers, the last one too
    you = between[len(closing) :]
    if not first.endswith(you):
        raise BaseError("base chat template", "another mark for the first message", "one mark for each person")
    # The other's end is the part of what lies between them that answers close with too; the rest opens the answer.
    closing_you = _common(answer, closing)

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else ()

    end, after = _split(ids(closing), tokenizer.eos_token_id)
    end_you, after_you = _split(ids(closing_you), tokenizer.eos_token_id)
    start = ids(first[: len(first) - len(you)])
    told = _around_system(tokenizer, you)
    system = None if told is None else (ids(told[0]), ids(told[1]))
    return Marks(start, ids(answer[len(closing_you) :]), ids(you), end, end_you, pad, after, after_you, system)


def _written(tokenizer: Any, said: Iterable[tuple[str, str]]) -> str:
    messages = [{"role": role, "content": text} for role, text in said]
    template = _SOME_DAY + tokenizer.chat_template
    return str(tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False))


def _around_system(tokenizer: Any, you: str) -> tuple[str, str] | None:
    """Return what a template writes before and behind a system's message; None where it has no place of its own."""
    try:
        written = _written(tokenizer, [("system", _TOLD), *zip(_ROLES, _PROBES, strict=True)])
    except Exception:  # templates without a system raise classes of Jinja's and of their own
        return None
    before, found, rest = written.partition(_TOLD)
    behind, _, _ = rest.partition(_PROBES[0])
    if not found or not behind.endswith(you) or any(probe in before for probe in _PROBES):
        return None
    return before, behind[: len(behind) - len(you)]


def _common(one: str, other: str) -> str:
    """Return what two texts begin with alike."""
    return commonprefix([one, other])  # noqa: RUF071  # character by character is what is wanted


def _split(tokens: tuple[int, ...], end: int | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Cut behind the end token; without one, everything is the end."""
    cut = tokens.index(end) + 1 if end in tokens else len(tokens)
    return tokens[:cut], tokens[cut:]
