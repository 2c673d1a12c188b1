"""The private Flower names of a ServerApp's end of a SuperLink: how replies are taken from it.

A SuperLink names a reply as soon as its sender has announced it, hands that name over once, and forgets the request in
the same moment; the reply's parts may still be on their way, or never come, because the connection broke. Flower's own
Grid then waits for these parts, up to three minutes and with everybody else's replies behind it, and gives the client
up. Here what is not complete is left where it is and looked at again at the next question, whoever it is of. And a
SuperLink keeps a reply that nobody takes until the run ends: those that come too late are taken and thrown away.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from fedpeft.federation.flower_internals import number

LOST = frozenset({ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE})
"""Errors that say of a message, not of its client, that it is gone: whoever asks again is answered."""

AWAY = ErrorCode.NODE_UNAVAILABLE
"""The error for a node that has been silent for two heartbeats."""


class Coming:
    """A reply of which the SuperLink knows.

    Parameters
    ----------
    head : Message
        Without its content.
    objects : list of str
        The parts that it is made of.
    """

    def __init__(self, head: Message, objects: list[str]) -> None:
        self.head, self.missing = head, objects
        self.parts: dict[str, bytes] = {}

    @property
    def asked(self) -> str:
        """The id of the request that it answers."""
        return str(self.head.metadata.reply_to_message_id)


class Inbox:
    """Takes replies from a SuperLink, each when all of it is there.

    Parameters
    ----------
    grid : Grid
        The one that Flower gives to a ServerApp.
    """

    def __init__(self, grid: Any) -> None:
        self._grid = grid
        self._coming: dict[str, Coming] = {}
        self._abandoned: set[str] = set()

    def abandon(self, ids: Iterable[str]) -> None:
        """Hear that nobody waits for the replies to these requests any more."""
        self._abandoned.update(ids)

    def pull(self, ids: Iterable[str]) -> list[Message]:
        """Return the replies to requests that are there as a whole.

        Parameters
        ----------
        ids : iterable of str
            All requests whose replies are still of interest.

        Returns
        -------
        list of Message
            Among them errors: :data:`LOST` for what came in part and whose rest the SuperLink does not have any more.
        """
        wanted = set(ids)
        unnamed = wanted - self._coming.keys()
        if unnamed:
            asked = PullAppMessagesRequest(message_ids=sorted(unnamed | self._abandoned))
            named = self._grid._runtime_client.PullMessages(asked)
            for head, tree in zip(named.messages_list, named.message_object_trees, strict=True):
                parts = dict.fromkeys(part.object_id for part in iterate_object_tree(tree))
                reply = Coming(message_from_proto(head), list(parts))
                self._coming[reply.asked] = reply
        for reply in [reply for id_, reply in self._coming.items() if id_ not in wanted]:
            del self._coming[reply.asked]
            self._abandoned.discard(reply.asked)
            self._confirm(reply)
        whole = []
        for reply in list(self._coming.values()):
            message = self._complete(reply)
            if message is not None:
                del self._coming[reply.asked]
                whole.append(message)
        return whole

    def _complete(self, reply: Coming) -> Message | None:
        """Fetch what is there of a reply, and return it when that is all of it."""
        client, node, run = self._grid._runtime_client, self._grid.node, reply.head.metadata.run_id
        while reply.missing:
            part = reply.missing[-1]
            found = client.PullObject(PullObjectRequest(node=node, run_id=run, object_id=part))
            if not found.object_found:
                error = Error(ErrorCode.MESSAGE_UNAVAILABLE, "the reply was broken off on its way")
                return _as_reply(reply.head, error)
            if not found.object_available:
                return None
            reply.parts[reply.missing.pop()] = bytes(found.object_content)
        self._confirm(reply)
        id_ = reply.head.metadata.message_id
        message = inflate_object_from_contents(id_, reply.parts)
        if not isinstance(message, Message):
            return _as_reply(reply.head, Error(ErrorCode.UNKNOWN, "a reply that is no message"))
        return number(message, id_)

    def _confirm(self, reply: Coming) -> None:
        """Let the SuperLink forget a reply and its parts."""
        head = reply.head.metadata
        self._grid._runtime_client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(node=self._grid.node, run_id=head.run_id, message_object_id=head.message_id)
        )


def lost(reply: Message) -> bool:
    """Say whether a reply only says that a message was lost."""
    return bool(reply.has_error() and reply.error.code in LOST)


def away(reply: Message) -> bool:
    """Say whether a reply only says that its node is not there."""
    return bool(reply.has_error() and reply.error.code == AWAY)


def _as_reply(head: Message, error: Error) -> Message:
    head.__dict__["_content"], head.__dict__["_error"] = None, error
    return head
