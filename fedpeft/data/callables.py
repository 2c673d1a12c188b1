"""A Python callable as a federation: ``module:callable`` in a scenario.

The callable takes no argument and returns a mapping from a client's name to what the client wrote: strings
in order of time (each its own message), or :class:`~fedpeft.data.messages.Message` tuples (conversations).
It may also return a finished :class:`~fedpeft.data.federation.Federation`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from fedpeft.data.messages import Conversation, Message
from fedpeft.errors import DataError


class CallableFederation:
    """Clients given by a user's function.

    Parameters
    ----------
    target : str
        ``"module:callable"``; the module may lie in the working directory.

    Raises
    ------
    DataError
        When it cannot be imported, fails, or returns something else than clients.
    """

    def __init__(self, target: str) -> None:
        self.name = target
        self._clients = _call(target)
        if not self._clients:
            raise DataError("data.federation", target, "at least one client")

    def client_ids(self) -> list[str]:
        """Return the mapping's keys in its order."""
        return list(self._clients)

    def conversations(self, client_id: str) -> list[Conversation]:
        """Return one client's conversations.

        Raises
        ------
        DataError
            When an entry is neither a string nor a tuple of messages.
        """
        return [
            _conversation(entry, order, f"{self.name}[{client_id!r}][{order}]")
            for order, entry in enumerate(self._clients[client_id])
        ]


def _call(target: str) -> dict[str, Sequence[str | Conversation]]:
    module, _, attribute = target.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        result = getattr(import_module(module), attribute)()
    except Exception as error:  # somebody else's code may fail in any way
        raise DataError(
            "data.federation", target, "an importable function without arguments", f"{type(error).__name__}: {error}"
        ) from error
    if hasattr(result, "client_ids") and hasattr(result, "conversations"):
        return {c: tuple(result.conversations(c)) for c in result.client_ids()}
    if not isinstance(result, Mapping):
        raise DataError("data.federation", type(result).__name__, "a mapping from client name to messages")
    return {str(name): _entries(name, entries, target) for name, entries in result.items()}


def _entries(name: object, entries: object, target: str) -> tuple[Any, ...]:
    if isinstance(entries, str) or not isinstance(entries, Iterable):
        raise DataError(f"{target}[{name!r}]", entries, "a list of strings or of tuples of messages")
    return tuple(entries)


def _conversation(entry: str | Conversation, order: int, where: str) -> Conversation:
    if isinstance(entry, str):
        return (Message(entry.strip(), True, float(order)),)
    if isinstance(entry, tuple) and all(isinstance(m, Message) for m in entry):
        return tuple(sorted(entry, key=lambda m: m.time))
    raise DataError(where, entry, "a string or a tuple of fedpeft.data.Message")
