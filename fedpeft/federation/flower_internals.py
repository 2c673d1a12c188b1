"""Every private Flower name fedpeft uses, in one place; the minor version is pinned in pyproject.toml."""

from __future__ import annotations

from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto, recorddict_to_proto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.supercore.task_identity import TaskIdentity

CLIENT_RAISED = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
CLIENT_GONE = ErrorCode.UNKNOWN


def identify(run_id: int, node_id: int) -> None:
    """Say who this process is: Flower refuses to build a message before it knows."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, run_id, node_id


def number(message: Message, message_id: str) -> Message:
    """Give a message the id that a SuperLink would; replies refer to it."""
    message.metadata.__dict__["_message_id"] = message_id
    return message


def to_bytes(message: Message) -> bytes:
    """Serialize a message as Flower puts it on the wire."""
    return bytes(message_to_proto(message).SerializeToString())


def from_bytes(data: bytes) -> Message:
    """Read a message that :func:`to_bytes` wrote."""
    return message_from_proto(MessageProto.FromString(data))


def wire_size(content: RecordDict) -> int:
    """Return the bytes a message's content takes on the wire."""
    return int(recorddict_to_proto(content).ByteSize())
