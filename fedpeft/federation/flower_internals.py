"""Every private Flower name fedpeft uses, in one place; the minor version is pinned in pyproject.toml.

Beside it lie ``flower_fleet``, the API that nodes speak, ``flower_control``, the one that operators speak, and
``flower_secagg``, for benchmarks.
"""

from __future__ import annotations

from hashlib import sha256
from importlib.metadata import version

from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto, recorddict_from_proto, recorddict_to_proto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.recorddict_pb2 import RecordDict as RecordDictProto
from flwr.supercore.task_identity import TaskIdentity
from google.protobuf.message import DecodeError

from fedpeft.errors import VersionError

CLIENT_RAISED = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
CLIENT_GONE = ErrorCode.UNKNOWN

UNREADABLE = (DecodeError, ValueError, TypeError, KeyError)
"""What reading damaged bytes may raise."""

FLOWER = "1.41"
"""The minor version whose private names these are."""


def require_flower(found: str = "") -> None:
    """Refuse another Flower than the one whose private names are used here; better than a strange error later.

    Raises
    ------
    VersionError
    """
    found = found or version("flwr")
    if found.split(".")[:2] != FLOWER.split("."):
        raise VersionError("flwr", found, f"{FLOWER}.x", f"pip install 'flwr>={FLOWER},<1.{int(FLOWER[2:]) + 1}'")


def identify(run_id: int, node_id: int) -> None:
    """Say who this process is: Flower refuses to build a message before it knows."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, run_id, node_id


def number(message: Message, message_id: str) -> Message:
    """Give a message the id that a SuperLink would; replies refer to it."""
    message.metadata.__dict__["_message_id"] = message_id
    return message


def dated_as(reply: Message, request: Message) -> Message:
    """Give a reply the time and the time to live of its request, which are the server's.

    Flower takes them from the device's clock, and a SuperLink drops, without a word, what is dated an hour ahead.
    """
    reply.metadata.created_at = request.metadata.created_at
    reply.metadata.ttl = request.metadata.ttl
    return reply


def to_bytes(message: Message) -> bytes:
    """Serialize a message as Flower puts it on the wire."""
    return bytes(message_to_proto(message).SerializeToString())


def from_bytes(data: bytes) -> Message:
    """Read a message that :func:`to_bytes` wrote."""
    return message_from_proto(MessageProto.FromString(data))


def wire_size(content: RecordDict) -> int:
    """Return the bytes a message's content takes on the wire."""
    return int(recorddict_to_proto(content).ByteSize())


def content_id(message: Message) -> str:
    """Return a hash of what a message asks, whatever its id."""
    body = recorddict_to_proto(message.content).SerializeToString(deterministic=True)
    asked = f"{message.metadata.run_id}/{message.metadata.message_type}/".encode()
    return sha256(asked + body).hexdigest()


def state_to_bytes(state: RecordDict) -> bytes:
    """Serialize a context's state."""
    return bytes(recorddict_to_proto(state).SerializeToString())


def state_from_bytes(data: bytes) -> RecordDict:
    """Read a state that :func:`state_to_bytes` wrote."""
    return recorddict_from_proto(RecordDictProto.FromString(data))
