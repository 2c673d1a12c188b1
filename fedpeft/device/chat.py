"""What a base reads when several people have written: messages as the marks or the template it was trained with.

A base with marks reads ``<s>``, then each message as ``<me>`` or ``<you>``, its pieces, ``</s>``; the answer is the
person's own, so it begins with ``<me>``. A base with a template (Jinja, as Hugging Face tokenizers carry it) reads what
the template makes of the messages.

A mark that somebody typed is only characters. The template makes one text of marks and messages, so before that every
typed mark is set aside, and its characters take its place when the rest is cut into pieces.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cache
from typing import Any, NoReturn, Protocol, TypedDict

from fedpeft.device.text import Text
from fedpeft.errors import FedpeftError

ME, YOU, SYSTEM = "assistant", "user", "system"
_OPEN, _CLOSE = "\ue000", "\ue001"
_PACKAGE = "jinja2 3.1.6 or later: pip install 'jinja2>=3.1.6'"


class Message(TypedDict):
    """One message."""

    role: str
    content: str


class Chat(Protocol):
    """How a base is shown a conversation."""

    def begin(self, messages: Sequence[Message], room: int) -> list[int]:
        """Return the tokens before the answer, at most ``room``."""


class MarkedChat:
    """Messages between marks; ``assistant`` is the person whose adapter it is, ``user`` is whom they write to.

    Parameters
    ----------
    text : Text
    """

    def __init__(self, text: Text) -> None:
        self._text = text

    def begin(self, messages: Sequence[Message], room: int) -> list[int]:
        """Return the tokens before the answer; if they are too many, the first are dropped.

        Raises
        ------
        FedpeftError
            When the base has no marks, there are no messages, or one has a role that marks do not know.
        """
        facts = self._text.facts
        if not (facts.me and facts.you):
            remedy = "complete a text instead, or export the base with its chat template"
            raise FedpeftError("messages", "messages", "a text: this base has neither marks nor a template", remedy)
        ids: list[int] = []
        for message in checked(messages, (ME, YOU)):
            mark = facts.me if message["role"] == ME else facts.you
            ids += [*mark, *self._text.encode(message["content"]), *facts.end]
        ids += facts.me
        return [*facts.start, *ids[max(0, len(ids) - (room - len(facts.start))) :]]


class TemplateChat:
    """Messages in a template.

    Parameters
    ----------
    text : Text
    template : str
        Jinja source.

    Raises
    ------
    FedpeftError
        When Jinja is not there or the template is none.
    """

    def __init__(self, text: Text, template: str) -> None:
        self._text = text
        self._render = _compiled(template)

    def begin(self, messages: Sequence[Message], room: int) -> list[int]:
        """Return the tokens before the answer; if they are too many, the oldest messages are left out.

        Raises
        ------
        FedpeftError
            When there are no messages, the template refuses them, or the last alone is too long.
        """
        told = [m for m in checked(messages, (ME, YOU, SYSTEM)) if m["role"] == SYSTEM]
        said = [m for m in messages if m["role"] != SYSTEM]
        if not said:
            raise FedpeftError("messages", "only the system's", f"one of the {YOU} too")
        for first in range(len(said)):
            # A template wants the first message to be the user's.
            if first and said[first]["role"] != YOU:
                continue
            ids = self._encode([*told, *said[first:]])
            if len(ids) <= room:
                return ids
        raise FedpeftError("messages", f"more than {room} tokens", "a last message that fits into the base's context")

    def _encode(self, messages: Sequence[Message]) -> list[int]:
        aside = (_OPEN, _CLOSE, *self._text.marks)
        safe = [Message(role=m["role"], content=_set_aside(m["content"], aside)) for m in messages]
        facts = self._text.facts
        begin, end = self._text.written(facts.start[:1]), self._text.written(facts.end[-1:])
        rendered = self._render(safe, begin, end)
        ids: list[int] = []
        for i, part in enumerate(rendered.split(_OPEN)):
            index, closed, rest = part.partition(_CLOSE) if i else ("", "", part)
            ids += self._text.encode(aside[int(index)]) if closed else []
            ids += self._text.encode_marked(rest)
        return ids


def checked(messages: Sequence[Message], roles: Sequence[str]) -> Sequence[Message]:
    """Refuse messages that are none.

    Raises
    ------
    FedpeftError
        Naming the first.
    """
    if not messages:
        raise FedpeftError("messages", "none", "at least one")
    for i, message in enumerate(messages):
        if message.get("role") not in roles:
            raise FedpeftError(f"messages[{i}].role", message.get("role"), " or ".join(roles))
        if not isinstance(message.get("content"), str):
            raise FedpeftError(f"messages[{i}].content", message.get("content"), "a text")
    return messages


def _set_aside(content: str, aside: Sequence[str]) -> str:
    """Put a number between private characters where a mark is written."""
    found = {f"{_OPEN}{i}{_CLOSE}": written for i, written in enumerate(aside)}
    out, at = [], 0
    while at < len(content):
        match = max((m for m in found.items() if content.startswith(m[1], at)), key=lambda m: len(m[1]), default=None)
        out.append(match[0] if match else content[at])
        at += len(match[1]) if match else 1
    return "".join(out)


@cache
def _compiled(template: str) -> Callable[[Sequence[Message], str, str], str]:
    """Compile a template in a sandbox, with what Hugging Face's templates expect to find there."""
    try:
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise FedpeftError("chat_template", "no jinja2", _PACKAGE) from error
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )

    def raise_exception(complaint: str) -> NoReturn:
        raise TemplateError(complaint)

    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
    try:
        compiled = environment.from_string(template)
    except TemplateError as error:
        raise FedpeftError("chat_template", str(error), "a Jinja template") from error

    def render(messages: Sequence[Message], begin: str, end: str) -> str:
        try:
            return str(
                compiled.render(
                    messages=messages, bos_token=begin, eos_token=end, add_generation_prompt=True, tools=None
                )
            )
        except TemplateError as error:
            raise FedpeftError("messages", str(error), "messages that the base's template accepts") from error
        except Exception as error:  # a template is code
            raise FedpeftError("chat_template", str(error), "a template for messages with role and content") from error

    return render


def _tojson(value: Any, **options: Any) -> str:
    return json.dumps(value, **{"ensure_ascii": False, **options})
