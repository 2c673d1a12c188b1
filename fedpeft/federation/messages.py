"""Between values and Flower's records. What comes from the network is validated here, before any use."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from fedpeft.adapters.schema import Vector
from fedpeft.codecs.bfloat16 import from_bfloat16, to_bfloat16
from fedpeft.errors import ProtocolError
from fedpeft.federation.plan import RoundPlan, model_hash

_PLAN, _GLOBAL, _PAYLOAD, _NAMES, _FACTS = "plan", "global", "payload", "names", "facts"
_BFLOAT16, _OPAQUE = "fedpeft.bfloat16", "fedpeft.opaque"

COHORT = "cohort"
"""Name of the field in which a request says who else was asked."""

Fact = str | int | float | bool | list[float]


def request(plan: RoundPlan, change: Vector, extra: dict[str, str] | None = None) -> RecordDict:
    """Write a plan and the global change (bfloat16) as one message content."""
    data = to_bfloat16(change).tobytes()
    records = RecordDict()
    records[_PLAN] = ConfigRecord({**plan.as_record(), **(extra or {})})
    records[_GLOBAL] = ArrayRecord({_GLOBAL: Array("uint16", (change.size,), _BFLOAT16, data)})
    return records


def published(change: Vector) -> Vector:
    """Return the global change as clients receive it; what a run saves and scores."""
    return from_bfloat16(to_bfloat16(change))


def hash_of(change: Vector) -> str:
    """Return the hash under which a global change is announced."""
    return model_hash(to_bfloat16(change).tobytes())


def read_request(
    content: RecordDict, size: int, extra: tuple[str, ...] = ()
) -> tuple[RoundPlan, Vector, bytes, dict[str, str]]:
    """Read a request on the client.

    Returns
    -------
    plan : RoundPlan
    change : ndarray of float32, shape (size,)
    data : bytes
        The change as it came, for its hash.
    extra : dict
        The named further fields.

    Raises
    ------
    ProtocolError
        When anything is missing, of another type, of another length or not finite.
    """
    if _PLAN not in content.config_records or _GLOBAL not in content.array_records:
        raise ProtocolError("request", sorted(content), f"the records {_PLAN} and {_GLOBAL}")
    fields = dict(content.config_records[_PLAN])
    further = {}
    for name in extra:
        value = fields.pop(name, None)
        if not isinstance(value, str):
            raise ProtocolError(f"request {name}", value, "a string")
        further[name] = value
    data = _bytes(content.array_records[_GLOBAL], _GLOBAL, "uint16", size, _BFLOAT16)
    change = from_bfloat16(np.frombuffer(data, np.uint16))
    if not np.isfinite(change).all():
        raise ProtocolError("request global change", "NaN or infinity", "finite numbers")
    return RoundPlan.parse(fields), change, data, further


def parcel(data: bytes, names: Sequence[str] = ()) -> RecordDict:
    """Write bytes as one array, the cheapest content there is, and names beside them when there are any."""
    array = Array("uint8", (len(data),), _OPAQUE, data)
    records = RecordDict({_PAYLOAD: ArrayRecord({_PAYLOAD: array})})
    if names:
        records[_NAMES] = ConfigRecord({_NAMES: list(names)})
    return records


def read_parcel(content: RecordDict, length: int) -> bytes:
    """Read bytes of a known length.

    Raises
    ------
    ProtocolError
        When the content is not exactly one array of so many bytes.
    """
    records = content.array_records
    if set(content) != {_PAYLOAD} or _PAYLOAD not in records:
        raise ProtocolError("content", sorted(content), f"the record {_PAYLOAD} alone")
    return _bytes(records[_PAYLOAD], _PAYLOAD, "uint8", length, _OPAQUE)


def read_bounded(content: RecordDict, most: int) -> bytes:
    """Read bytes whose length the reader checks itself, up to a limit.

    Raises
    ------
    ProtocolError
        When there are more bytes than that, or anything else.
    """
    size = sum(len(array.data) for record in content.array_records.values() for array in record.values())
    if size > most:
        raise ProtocolError("content", f"{size} bytes", f"at most {most}")
    return read_parcel(content, size)


def read_named(content: RecordDict, most: int) -> tuple[bytes, list[str]]:
    """Read bytes up to a limit, and the names beside them.

    Raises
    ------
    ProtocolError
        When there are more bytes than that, no names, or anything else.
    """
    if set(content) != {_PAYLOAD, _NAMES} or _NAMES not in content.config_records:
        raise ProtocolError("content", sorted(content), f"the records {_PAYLOAD} and {_NAMES}")
    record = dict(content.config_records[_NAMES])
    names = record.pop(_NAMES, None)
    if record or not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ProtocolError("content names", names, "a list of names alone")
    rest = RecordDict({_PAYLOAD: content[_PAYLOAD]})
    return read_bounded(rest, most), [str(name) for name in names]


def facts(values: dict[str, Fact]) -> RecordDict:
    """Write plain values as a message content."""
    return RecordDict({_FACTS: ConfigRecord(dict(values))})


def read_facts(message: Message) -> dict[str, Fact]:
    """Read plain values.

    Raises
    ------
    ProtocolError
        When the message holds anything else.
    """
    if set(message.content) != {_FACTS} or _FACTS not in message.content.config_records:
        raise ProtocolError("reply", sorted(message.content), f"the record {_FACTS} alone")
    return dict(message.content.config_records[_FACTS])  # type: ignore[arg-type]


def _bytes(record: ArrayRecord, name: str, dtype: str, size: int, stype: str) -> bytes:
    if list(record) != [name]:
        raise ProtocolError("array record", sorted(record), f"the array {name} alone")
    array = record[name]
    found = (array.dtype, tuple(array.shape), array.stype, len(array.data))
    expected = (dtype, (size,), stype, size * np.dtype(dtype).itemsize)
    if found != expected:
        raise ProtocolError(f"array {name}", found, str(expected))
    return bytes(array.data)
