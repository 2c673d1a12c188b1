"""How a base writes the limits of a message, read from its tokenizer.

A tokenizer with ``<me>`` and ``<you>`` says so itself. One with a chat template is asked to write four short messages
by turns, and what it puts around them are the marks::

    start you U₁ end_you after_you me A₁ end after you U₂ end_you after_you me A₂ end after

The person whose data it is takes the assistant's part: the adapter learns to write as they do. Only ``end`` is learnt
with a message's own pieces; what comes after it, such as ChatML's line break, is not for a model to decide.
"""

from __future__ import annotations

from dataclasses import dataclass
from os.path import commonprefix
from typing import Any, Protocol

from fedpeft.errors import BaseError

PAD, START, END, ME, YOU = "<pad>", "<s>", "</s>", "<me>", "<you>"
_PROBES = ("QzU1", "QzA1", "QzU2", "QzA2")
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
    """

    start: tuple[int, ...]
    me: tuple[int, ...]
    you: tuple[int, ...]
    end: tuple[int, ...]
    end_you: tuple[int, ...]
    pad: int
    after: tuple[int, ...] = ()
    after_you: tuple[int, ...] = ()

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
    messages = [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, _PROBES, strict=True)]
    try:
        template = _SOME_DAY + tokenizer.chat_template
        written = str(tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False))
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
    return Marks(start, ids(answer[len(closing_you) :]), ids(you), end, end_you, pad, after, after_you)


def _common(one: str, other: str) -> str:
    """Return what two texts begin with alike."""
    return commonprefix([one, other])  # noqa: RUF071  # character by character is what is wanted


def _split(tokens: tuple[int, ...], end: int | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Cut behind the end token; without one, everything is the end."""
    cut = tokens.index(end) + 1 if end in tokens else len(tokens)
    return tokens[:cut], tokens[cut:]
