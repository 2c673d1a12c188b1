"""Between values and Flower's records. What comes from the network is validated here, before any use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from fedpeft.adapters.schema import Vector
from fedpeft.codecs.bfloat16 import from_bfloat16, to_bfloat16
from fedpeft.errors import ProtocolError
from fedpeft.federation.plan import RoundPlan, model_hash

_PLAN, _GLOBAL, _PAYLOAD, _NAMES, _FACTS = "plan", "global", "payload", "names", "facts"
_BFLOAT16, _OPAQUE = "fedpeft.bfloat16", "fedpeft.opaque"

WHOLE = 1 << 20
"""Up to so many bytes travel in one object, a field of a record. Flower fetches and sends each object by a request, and
an array is three of them; but it cuts a large one into pieces, of which only those that were lost are sent again."""

_WIDTH = 2  # bytes of a bfloat16

COHORT = "cohort"
"""Name of the field in which a request says who else was asked."""

Fact = str | int | float | bool | list[float]


def request(plan: RoundPlan, change: Vector, extra: dict[str, str] | None = None) -> RecordDict:
    """Write a plan and the global change (bfloat16) as one message content."""
    data = to_bfloat16(change).tobytes()
    fields: dict[str, Any] = {**plan.as_record(), **(extra or {})}
    if len(data) <= WHOLE:
        return RecordDict({_PLAN: ConfigRecord({**fields, _GLOBAL: data})})
    array = Array("uint16", (change.size,), _BFLOAT16, data)
    return RecordDict({_PLAN: ConfigRecord(fields), _GLOBAL: ArrayRecord({_GLOBAL: array})})


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
    whole = size * _WIDTH <= WHOLE
    wanted = {_PLAN} if whole else {_PLAN, _GLOBAL}
    if set(content) != wanted or _PLAN not in content.config_records:
        raise ProtocolError("request", sorted(content), f"exactly the records {sorted(wanted)}")
    fields = dict(content.config_records[_PLAN])
    found = fields.pop(_GLOBAL, None) if whole else content[_GLOBAL]
    further = {}
    for name in extra:
        value = fields.pop(name, None)
        if not isinstance(value, str):
            raise ProtocolError(f"request {name}", value, "a string")
        further[name] = value
    data = _bytes(found, _GLOBAL, "uint16", size, _BFLOAT16)
    change = from_bfloat16(np.frombuffer(data, np.uint16))
    if not np.isfinite(change).all():
        raise ProtocolError("request global change", "NaN or infinity", "finite numbers")
    return RoundPlan.parse(fields), change, data, further


def parcel(data: bytes, names: Sequence[str] = ()) -> RecordDict:
    """Write bytes as few objects, and names beside them when there are any."""
    if len(data) <= WHOLE:
        records = RecordDict({_PAYLOAD: ConfigRecord({_PAYLOAD: data})})
    else:
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
        When the content is not exactly so many bytes.
    """
    if set(content) != {_PAYLOAD}:
        raise ProtocolError("content", sorted(content), f"the record {_PAYLOAD} alone")
    if length > WHOLE:
        return _bytes(content[_PAYLOAD], _PAYLOAD, "uint8", length, _OPAQUE)
    record = content[_PAYLOAD]
    if not isinstance(record, ConfigRecord) or set(record) != {_PAYLOAD}:
        raise ProtocolError(f"array {_PAYLOAD}", type(record).__name__, f"{length} bytes alone")
    return _bytes(record[_PAYLOAD], _PAYLOAD, "uint8", length, _OPAQUE)


def read_bounded(content: RecordDict, most: int) -> bytes:
    """Read bytes whose length the reader checks itself, up to a limit.

    Raises
    ------
    ProtocolError
        When there are more bytes than that, or anything else.
    """
    size = _size(content)
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


def _size(content: RecordDict) -> int:
    """Return how many bytes a content carries, in whatever form."""
    arrays = sum(len(array.data) for record in content.array_records.values() for array in record.values())
    fields = [value for record in content.config_records.values() for value in record.values()]
    return arrays + sum(len(value) for value in fields if isinstance(value, bytes))


def _bytes(found: object, name: str, dtype: str, size: int, stype: str) -> bytes:
    """Return the bytes of a field, or of the one array of a record, if they are of the length and type that is due."""
    length = size * np.dtype(dtype).itemsize
    if length <= WHOLE:
        if not isinstance(found, bytes) or len(found) != length:
            what = f"{len(found)} bytes" if isinstance(found, bytes) else type(found).__name__
            raise ProtocolError(f"array {name}", what, f"{length} bytes")
        return found
    if not isinstance(found, ArrayRecord) or list(found) != [name]:
        raise ProtocolError(f"array {name}", type(found).__name__, f"a record of the array {name} alone")
    array = found[name]
    described = (array.dtype, tuple(array.shape), array.stype, len(array.data))
    expected = (dtype, (size,), stype, length)
    if described != expected:
        raise ProtocolError(f"array {name}", described, str(expected))
    return bytes(array.data)
