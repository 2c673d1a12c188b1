"""The private Flower names of an embedded node: a SuperLink's Fleet API, one call a method.

Nothing here retries, and nothing ends the process: errors are :class:`~fedpeft.errors.LinkError`, and what to do about
them is the node's business. Runs and FABs are never asked for, so no code of the server's can arrive.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import HEARTBEAT_MAX_INTERVAL, HEARTBEAT_MIN_INTERVAL, TIMESTAMP_HEADER
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.interceptors.http.utils import add_headers
from flwr.supercore.primitives.asymmetric import sign_message
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supernode.fleet_http_client import FleetHttpClient

from fedpeft.errors import LinkError, MessageGone, NotYet
from fedpeft.federation.flower_internals import number
from fedpeft.federation.flower_link import Arguments, Versions, skew, translated
from fedpeft.signing.nodekey import NodeKey, node_public

SHORTEST, LONGEST = HEARTBEAT_MIN_INTERVAL, HEARTBEAT_MAX_INTERVAL
"""Heartbeat intervals that a SuperLink accepts; it gives a silent node up after two of them."""

SERVER = 1
"""The node id from which all messages of a ServerApp come."""

# A request is a handful of objects: message, records, one array in pieces of 5 MB.
_MOST_OBJECTS, _MOST_BYTES = 1024, 1 << 30


@dataclass(frozen=True)
class Delivery:
    """A message that the SuperLink has handed over to this node, and to nobody else, once.

    Parameters
    ----------
    run : int
    id : str
        Of the message, which is the hash of its content.
    kind : str
        Its type, such as ``train``.
    objects : tuple of str
        What its content is made of.
    """

    run: int
    id: str
    kind: str
    objects: tuple[str, ...]


class FleetLine:
    """One node's connection.

    Parameters
    ----------
    server : str
        ``host:port``.
    root : Path
        The authority that signed the server's certificate.
    key : NodeKey
    """

    def __init__(self, server: str, root: Path, key: NodeKey) -> None:
        self._server, self._public = server, node_public(key)
        arguments = Arguments(root, [Versions("SuperNode"), _Signed(key)])
        self._client = FleetHttpClient(f"https://{server}", **vars(arguments))

    def activate(self, interval: float) -> int:
        """Say that this node is there, and return its id."""
        request = ActivateNodeRequest(public_key=self._public, heartbeat_interval=interval)
        with translated("activation", self._server):
            return int(self._client.ActivateNode(request).node_id)

    def deactivate(self, node: int) -> None:
        """Say that this node goes."""
        with translated("deactivation", self._server):
            self._client.DeactivateNode(DeactivateNodeRequest(node_id=node))

    def beat(self, node: int, interval: float) -> bool:
        """Say that this node is still there, and will say so again within the interval; False when it is unknown."""
        request = SendNodeHeartbeatRequest(node=Node(node_id=node), heartbeat_interval=interval)
        with translated("heartbeat", self._server):
            return bool(self._client.SendNodeHeartbeat(request).success)

    def pull(self, node: int) -> Delivery | None:
        """Return the next message for this node, if there is one."""
        with translated("messages", self._server):
            answer = self._client.PullMessages(PullMessagesRequest(node=Node(node_id=node)))
            if not answer.messages_list:
                return None
            if len(answer.messages_list) != 1 or len(answer.message_object_trees) != 1:
                raise ValueError(f"{len(answer.messages_list)} messages instead of one")
            meta, tree = message_from_proto(answer.messages_list[0]).metadata, answer.message_object_trees[0]
            objects = tuple(dict.fromkeys(part.object_id for part in iterate_object_tree(tree)))
            if meta.dst_node_id != node or meta.src_node_id != SERVER or tree.object_id != meta.message_id:
                raise ValueError("a message that is not for this node, or not of its own parts")
            if len(objects) > _MOST_OBJECTS:
                raise ValueError(f"a message of {len(objects)} objects")
        return Delivery(meta.run_id, meta.message_id, meta.message_type, objects)

    def fetch(self, node: int, delivery: Delivery) -> Message:
        """Fetch a message's parts and put them together; each part is checked against its hash.

        Raises
        ------
        MessageGone
            When the SuperLink has them no more, or not all of them.
        NotYet
            When the server is still sending them.
        """
        parts: dict[str, bytes] = {}
        for id_ in delivery.objects:
            with translated("object", self._server):
                request = PullObjectRequest(node=Node(node_id=node), run_id=delivery.run, object_id=id_)
                answer = self._client.PullObject(request)
            if not answer.object_found:
                raise MessageGone(f"object of {delivery.kind}", id_[:12], "one that the SuperLink still has")
            if not answer.object_available:
                raise NotYet(f"object of {delivery.kind}", id_[:12], "one that has been sent")
            parts[id_] = bytes(answer.object_content)
            if get_object_id(parts[id_]) != id_ or sum(map(len, parts.values())) > _MOST_BYTES:
                raise MessageGone(f"object of {delivery.kind}", id_[:12], "content with this hash, of bounded size")
        with translated("message", self._server):
            message = inflate_object_from_contents(delivery.id, parts)
            if not isinstance(message, Message) or message.metadata.run_id != delivery.run:
                raise ValueError(type(message).__name__)
        return number(message, delivery.id)

    def confirm(self, node: int, delivery: Delivery) -> None:
        """Say that a message is here for good, so that the SuperLink may forget its parts."""
        request = ConfirmMessageReceivedRequest(
            node=Node(node_id=node), run_id=delivery.run, message_object_id=delivery.id
        )
        with translated("confirmation", self._server):
            self._client.ConfirmMessageReceived(request)

    def push(self, node: int, reply: Message, again: bool = False) -> None:
        """Send a reply; sending the same one again does no harm.

        Parameters
        ----------
        node : int
        reply : Message
        again : bool
            Whether it was being sent before, and may have arrived in part. A SuperLink whose ServerApp has seen the
            reply announced takes no second announcement, and says that it lacks nothing; it still takes the parts.

        Raises
        ------
        MessageGone
            When nobody waits for it any more.
        """
        run = reply.metadata.run_id
        with translated("reply", self._server), no_object_id_recompute():
            number(reply, reply.object_id)
            request = PushMessagesRequest(
                node=Node(node_id=node),
                messages_list=[message_to_proto(remove_content_from_message(reply))],
                message_object_trees=[get_object_tree(reply)],
                clientapp_runtime_list=[0.0],
            )
            answer = self._client.PushMessages(request)
            wanted, parts = set(answer.objects_to_push), get_all_nested_objects(reply)
            for id_ in parts:
                if id_ in wanted and not self._push_object(node, run, answer.session_id, id_, parts[id_].deflate()):
                    raise LinkError("object of a reply", id_[:12], "one that the SuperLink keeps", "it is sent again")
            if again and not wanted:
                for id_, part in parts.items():
                    # Without a session the SuperLink looks for the one that waits for this part.
                    self._push_object(node, run, "", id_, part.deflate())

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _push_object(self, node: int, run: int, session: str, id_: str, content: bytes) -> bool:
        """Send one part; say whether the SuperLink waited for it."""
        request = PushObjectRequest(
            node=Node(node_id=node), run_id=run, object_id=id_, object_content=content, session_id=session
        )
        return bool(self._client.PushObject(request).stored)


class _Signed:
    """Signs the time, as the SuperLink has it.

    A SuperLink refuses requests whose time is off by more than minutes. A device with a wrong clock learns the server's
    from the answer, over TLS, and signs with that: the time in a signature only keeps an old one from being used again.
    """

    def __init__(self, key: NodeKey) -> None:
        self._key, self._ahead = key, timedelta(0)
        self._public = b64encode(node_public(key)).decode("ascii")

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Add the node's key, the time and a signature of it; once more with the server's time where it differs."""
        add_headers(context.request, self._headers())
        response = call_next(context)
        if response.status_code == httpx.codes.UNAUTHORIZED and self._learn(response):
            context.request.headers.update(self._headers())
            response = call_next(context)
        return response

    def _learn(self, response: httpx.Response) -> bool:
        ahead = skew(response, datetime.now(UTC).timestamp())
        if ahead is None or abs(ahead - self._ahead.total_seconds()) < 2:
            return False
        self._ahead = timedelta(seconds=ahead)
        return True

    def _headers(self) -> dict[str, str]:
        stamp = (datetime.now(UTC) + self._ahead).isoformat()
        signature = sign_message(self._key, stamp.encode("ascii"))
        return {
            FLEET_HTTP_PUBLIC_KEY_HEADER: self._public,
            TIMESTAMP_HEADER: stamp,
            FLEET_HTTP_SIGNATURE_HEADER: b64encode(signature).decode("ascii"),
        }
