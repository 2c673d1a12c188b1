"""Nothing from the network is used before it is exactly what was agreed."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fedpeft.codecs.bfloat16 import from_bfloat16, to_bfloat16
from fedpeft.errors import ProtocolError
from fedpeft.federation.flower_internals import identify
from fedpeft.federation.messages import (
    facts,
    hash_of,
    published,
    read_facts,
    read_reply,
    read_request,
    reply,
    request,
)
from fedpeft.federation.plan import RoundPlan

UINT16 = np.dtype(np.uint16)


def plan(change: np.ndarray) -> RoundPlan:
    return RoundPlan("run", 3, "s" * 64, "c" * 64, "b" * 64, hash_of(change))


def message(content: RecordDict) -> Message:
    identify(1, 1)
    return Message(content, 2, "train")


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=50))
def test_a_request_arrives_as_the_published_change(values: list[float]) -> None:
    change = np.array(values, np.float32)
    got_plan, got, data, _ = read_request(request(plan(change), change), change.size)
    assert np.array_equal(got, published(change))
    got_plan.check("s" * 64, "c" * 64, "b" * 64, data)


@pytest.mark.parametrize("part", ["scenario", "schema", "base"])
def test_a_plan_for_something_else_is_refused_naming_the_part(part: str) -> None:
    change = np.ones(4, np.float32)
    mine = {"scenario": "s" * 64, "schema": "c" * 64, "base": "b" * 64, part: "x" * 64}
    data = to_bfloat16(change).tobytes()
    with pytest.raises(ProtocolError, match=f"round plan {part}"):
        plan(change).check(**mine, change=data)


def test_a_change_that_is_not_the_announced_one_is_refused() -> None:
    change = np.ones(4, np.float32)
    other = to_bfloat16(2 * change).tobytes()
    with pytest.raises(ProtocolError, match="round plan model"):
        plan(change).check("s" * 64, "c" * 64, "b" * 64, other)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_global_change_that_is_not_finite_is_refused(bad: float) -> None:
    change = np.array([0.0, bad], np.float32)
    assert not np.isfinite(from_bfloat16(to_bfloat16(change))).all()
    with pytest.raises(ProtocolError, match="finite"):
        read_request(request(plan(change), change), 2)


@pytest.mark.parametrize("size", [0, 3, 5])
def test_a_global_change_of_another_length_is_refused(size: int) -> None:
    change = np.ones(size, np.float32)
    with pytest.raises(ProtocolError, match="array global"):
        read_request(request(plan(change), change), 4)


@pytest.mark.parametrize(
    "edit", [{"round": "3"}, {"round": None}, {"extra": "x"}, {"scenario": 7}], ids=["text", "none", "extra", "number"]
)
def test_a_plan_with_a_wrong_field_is_refused(edit: dict[str, object]) -> None:
    record = {**plan(np.ones(1, np.float32)).as_record(), **edit}
    with pytest.raises(ProtocolError, match="round plan"):
        RoundPlan.parse(record)


def test_a_reply_comes_back_to_the_bit() -> None:
    payload = np.arange(100, dtype=np.uint16)
    assert np.array_equal(read_reply(message(reply(payload)), 100, UINT16), payload)


def _array(dtype: str, shape: tuple[int, ...], stype: str, data: bytes) -> RecordDict:
    return RecordDict({"payload": ArrayRecord({"payload": Array(dtype, shape, stype, data)})})


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        facts({"payload": "hello"}),
        _array("uint16", (4,), "fedpeft.ring", b"\0" * 6),
        _array("uint16", (4,), "fedpeft.ring", b"\0" * 8_000_000),
        _array("uint16", (2, 2), "fedpeft.ring", b"\0" * 8),
        _array("uint32", (4,), "fedpeft.ring", b"\0" * 16),
        _array("uint16", (4,), "numpy.ndarray", b"\0" * 8),
        RecordDict({"payload": ArrayRecord({"other": Array("uint16", (4,), "fedpeft.ring", b"\0" * 8)})}),
        RecordDict({**_array("uint16", (4,), "fedpeft.ring", b"\0" * 8), "more": ConfigRecord({"a": 1})}),
    ],
    ids=["empty", "facts", "short", "oversized", "shape", "dtype", "stype", "name", "more"],
)
def test_garbage_instead_of_a_payload_is_refused(content: RecordDict) -> None:
    with pytest.raises(ProtocolError):
        read_reply(message(content), 4, UINT16)


def test_facts_with_anything_beside_them_are_refused() -> None:
    content = facts({"client": "ada"})
    assert read_facts(message(content)) == {"client": "ada"}
    content["more"] = ConfigRecord({"a": 1})
    with pytest.raises(ProtocolError):
        read_facts(message(content))
