"""What a ServerApp does when replies come in part, late, twice or not at all; the real SuperLink is in test_bad_connections.

The SuperLink here keeps to the rules of Flower's own: a reply is named once, its request is forgotten then, and parts
are found, on their way, or gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import PullObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesResponse

from fedpeft.federation.deployed import link_grid
from fedpeft.federation.deployed.link_grid import LinkGrid
from fedpeft.federation.flower_internals import identify, number
from fedpeft.federation.messages import parcel

FIRST, SECOND = 11, 12


@dataclass
class Announced:
    reply: Message
    arrives: float = 0.0
    gone: bool = False
    named: bool = False


@dataclass
class Link:
    """A SuperLink whose nodes do as ``answer`` says: from (node, how often it was asked) to what becomes of a reply."""

    answer: Callable[[int, int], Announced | float | Error]
    sent: list[tuple[int, float]] = field(default_factory=list)
    slow: float = 0.0
    confirmed: int = 0
    node = None
    _replies: dict[str, Announced] = field(default_factory=dict)
    _parts: dict[str, tuple[Announced, bytes]] = field(default_factory=dict)

    @property
    def _runtime_client(self) -> Link:
        return self

    def push_messages(self, messages: list[Message]) -> list[str]:
        from flwr.app.message import remove_content_from_message
        from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

        ids = []
        for message in messages:
            node = message.metadata.dst_node_id
            times = [known for known, _ in self.sent].count(node)
            self.sent.append((node, message.metadata.ttl))
            number(message, f"request-{len(self.sent)}")
            ids.append(message.metadata.message_id)
            plan = self.answer(node, times)
            content = plan if isinstance(plan, Error) else parcel(b"x")
            reply = Message(content, reply_to=message)
            made = plan if isinstance(plan, Announced) else Announced(reply, 0.0 if isinstance(plan, Error) else plan)
            made.reply = number(reply, reply.object_id)
            made.arrives += time.monotonic()
            self._replies[ids[-1]] = made
            made.head = message_to_proto(remove_content_from_message(reply))
            made.tree = get_object_tree(reply)
            for id_, part in get_all_nested_objects(reply).items():
                if id_ not in self._parts or self._parts[id_][0].gone:  # copies of a reply share their parts
                    self._parts[id_] = made, part.deflate()
        return ids

    def PullMessages(self, request) -> PullAppMessagesResponse:  # noqa: N802  (Flower's name)
        time.sleep(self.slow)
        self.slow = 0.0
        found = [self._replies[id_] for id_ in request.message_ids]
        ready = [one for one in found if not one.named and (one.gone or one.arrives <= time.monotonic())]
        for one in ready:
            one.named = True
        return PullAppMessagesResponse(
            messages_list=[one.head for one in ready], message_object_trees=[one.tree for one in ready]
        )

    def PullObject(self, request) -> PullObjectResponse:  # noqa: N802  (Flower's name)
        made, content = self._parts[request.object_id]
        there = made.arrives <= time.monotonic()
        if made.gone:
            return PullObjectResponse(object_found=not there, object_available=False)
        return PullObjectResponse(object_found=True, object_available=there, object_content=content if there else b"")

    def ConfirmMessageReceived(self, request) -> None:  # noqa: N802  (Flower's name)
        self.confirmed += 1


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    identify(1, 1)
    monkeypatch.setattr(link_grid, "_SOON", 0.01)
    monkeypatch.setattr(link_grid, "_MOST", 0.05)
    monkeypatch.setattr(link_grid, "_AGAIN", 0.05)


def ask(grid: LinkGrid, *nodes: int, timeout: float = 5.0) -> list[tuple[int, bool]]:
    """Return who answered, in order, and whether with an error."""
    messages = [Message(RecordDict(), node, "train") for node in nodes]
    return [(m.metadata.src_node_id, m.has_error()) for m in grid.stream(messages, timeout=timeout)]


def test_a_reply_that_is_broken_off_holds_up_nobody_and_is_asked_for_again() -> None:
    def answer(node: int, times: int) -> Announced | float:
        broken = node == FIRST and not times
        return Announced(None, 0.3, gone=True) if broken else 0.0

    link, begun = Link(answer), time.monotonic()
    stream = LinkGrid(link, 5.0).stream([Message(RecordDict(), node, "train") for node in (FIRST, SECOND)])
    assert next(stream).metadata.src_node_id == SECOND
    assert time.monotonic() - begun < 0.3
    assert [message.metadata.src_node_id for message in stream] == [FIRST]
    assert [node for node, _ in link.sent] == [FIRST, SECOND, FIRST]


def test_a_node_that_is_silent_is_given_up_but_not_after_an_outage_of_the_superlink(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link_grid, "_OUTAGE", 0.05)
    silent = Error(ErrorCode.NODE_UNAVAILABLE, "no heartbeat")

    def answer(node: int, times: int) -> Error | float:
        return silent if not times else 0.0

    assert ask(LinkGrid(Link(answer), 5.0), FIRST) == [(FIRST, True)]
    assert ask(LinkGrid(Link(answer, slow=0.1), 5.0), FIRST, SECOND) == [(FIRST, False), (SECOND, False)]


def test_a_request_is_repeated_later_the_longer_such_requests_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_grid, "_REPEAT", 0.1)
    link = Link(lambda node, times: 0.4)
    grid = LinkGrid(link, 20.0)
    assert ask(grid, FIRST) == [(FIRST, False)]
    assert len(link.sent) == 3  # at 0, 0.1 and 0.3 s
    assert ask(grid, FIRST) == [(FIRST, False)]
    assert len(link.sent) == 4
    # The answers to the two copies were taken on the side, so that the SuperLink does not keep them for ever.
    assert link.confirmed == 4


def test_nobody_is_waited_for_beyond_the_deadline_nor_asked_to_work_beyond_it() -> None:
    link, begun = Link(lambda node, times: 0.0 if node == FIRST else 60.0), time.monotonic()
    assert ask(LinkGrid(link, 600.0), FIRST, SECOND, timeout=0.5) == [(FIRST, False)]
    assert 0.5 <= time.monotonic() - begun < 5
    assert all(ttl <= 1.0 for _, ttl in link.sent)
