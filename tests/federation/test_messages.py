"""Nothing from the network is used before it is exactly what was agreed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fedpeft.codecs.bfloat16 import from_bfloat16, to_bfloat16
from fedpeft.errors import ProtocolError
from fedpeft.federation.flower_internals import from_bytes, identify, to_bytes
from fedpeft.federation.messages import (
    WHOLE,
    facts,
    hash_of,
    parcel,
    published,
    read_bounded,
    read_facts,
    read_named,
    read_parcel,
    read_request,
    request,
)
from fedpeft.federation.plan import RoundPlan


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


@pytest.mark.parametrize(
    ("scale", "fits"), [(1.0, True), (1e-6, True), (9e-7, False), (0.0, False), (-0.5, False), (1.1, False), (1, False)]
)
def test_the_share_of_the_range_is_neither_more_than_all_nor_next_to_nothing(scale: float, fits: bool) -> None:
    record = {**plan(np.ones(1, np.float32)).as_record(), "scale": scale}
    if fits:
        assert RoundPlan.parse(record).scale == scale
        return
    with pytest.raises(ProtocolError, match="round plan scale"):
        RoundPlan.parse(record)


def test_a_scale_that_is_no_number_is_refused() -> None:
    with pytest.raises(ProtocolError, match="round plan scale"):
        RoundPlan.parse({**plan(np.ones(1, np.float32)).as_record(), "scale": float("nan")})


@pytest.mark.parametrize("field", [field.name for field in fields(RoundPlan)])
def test_whatever_differs_in_two_plans_their_digests_differ(field: str) -> None:
    """A secure channel binds a round to the digest: no field can be said differently to two clients."""
    mine = plan(np.ones(1, np.float32))
    other = {"round": 4, "scale": 0.5}.get(field, "0" * 64)
    assert replace(mine, **{field: other}).digest != mine.digest
    assert RoundPlan.parse(mine.as_record()).digest == mine.digest


def test_the_digest_survives_the_wire(wire: Callable[[RecordDict], RecordDict]) -> None:
    change = np.ones(3, np.float32)
    mine = replace(plan(change), scale=0.1 + 0.2 / 3)
    got, *_ = read_request(wire(request(mine, change)), 3)
    assert got.digest == mine.digest


@pytest.fixture
def wire() -> Callable[[RecordDict], RecordDict]:
    """Return what a content is after Flower has carried it."""

    def carried(content: RecordDict) -> RecordDict:
        return from_bytes(to_bytes(message(content))).content

    return carried


@given(st.binary(max_size=200))
def test_a_parcel_comes_back_to_the_bit(data: bytes) -> None:
    assert read_parcel(parcel(data), len(data)) == data
    assert read_bounded(parcel(data), 200) == data


def test_names_travel_beside_a_parcel(wire: Callable[[RecordDict], RecordDict]) -> None:
    content = wire(parcel(b"abc", ["ada", "bo"]))
    assert read_named(content, 3) == (b"abc", ["ada", "bo"])
    with pytest.raises(ProtocolError, match="at most 2"):
        read_named(content, 2)
    for reader in (read_parcel, read_bounded):
        with pytest.raises(ProtocolError, match="payload alone"):
            reader(content, 3)


def _array(dtype: str, shape: tuple[int, ...], stype: str, data: bytes, name: str = "payload") -> RecordDict:
    return RecordDict({"payload": ArrayRecord({name: Array(dtype, shape, stype, data)})})


OPAQUE = "fedpeft.opaque"
GARBAGE = {
    "empty": RecordDict(),
    "facts": facts({"payload": "hello"}),
    "no bytes": RecordDict({"payload": ConfigRecord({"payload": "hell"})}),
    "another field": RecordDict({"payload": ConfigRecord({"bytes": b"\0" * 4})}),
    "a field more": RecordDict({"payload": ConfigRecord({"payload": b"\0" * 4, "more": 1})}),
    "an array": _array("uint8", (4,), OPAQUE, b"\0" * 4),
    "more": RecordDict({**parcel(b"\0" * 4), "more": ConfigRecord({"a": 1})}),
}


@pytest.mark.parametrize("case", GARBAGE)
def test_garbage_instead_of_a_parcel_is_refused(case: str) -> None:
    with pytest.raises(ProtocolError):
        read_parcel(GARBAGE[case], 4)
    with pytest.raises(ProtocolError):
        read_bounded(GARBAGE[case], 1000)
    with pytest.raises(ProtocolError):
        read_named(RecordDict({**GARBAGE[case], "names": ConfigRecord({"names": ["ada"]})}), 1000)


LARGE = WHOLE + 4
DAMAGED = {
    "no array": RecordDict({"payload": ArrayRecord()}),
    "half an integer": _array("uint8", (LARGE,), OPAQUE, bytes(LARGE - 1)),
    "more than it says": _array("uint8", (LARGE,), OPAQUE, bytes(LARGE + 1)),
    "shape": _array("uint8", (2, LARGE // 2), OPAQUE, bytes(LARGE)),
    "dtype": _array("uint16", (LARGE // 2,), OPAQUE, bytes(LARGE)),
    "stype": _array("uint8", (LARGE,), "numpy.ndarray", bytes(LARGE)),
    "name": _array("uint8", (LARGE,), OPAQUE, bytes(LARGE), "other"),
    "a field": RecordDict({"payload": ConfigRecord({"payload": bytes(LARGE)})}),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_garbage_instead_of_a_large_parcel_is_refused(case: str) -> None:
    with pytest.raises(ProtocolError, match="array payload"):
        read_parcel(DAMAGED[case], LARGE)


@pytest.mark.parametrize("more", [0, 2])
def test_what_is_large_travels_as_an_array_and_what_is_not_in_one_object(
    more: int, wire: Callable[[RecordDict], RecordDict]
) -> None:
    data, change = bytes(WHOLE + more), np.ones((WHOLE + more) // 2, np.float32)
    for content in (wire(parcel(data)), wire(request(plan(change), change))):
        assert bool(content.array_records) == bool(more)
    assert read_parcel(wire(parcel(data)), len(data)) == read_bounded(parcel(data), 2 * WHOLE) == data
    assert read_request(wire(request(plan(change), change)), change.size)[1].size == change.size
    for wrong in (0, change.size - 1):
        with pytest.raises(ProtocolError, match=r"request|array global"):
            read_request(request(plan(change), change), wrong)


@pytest.mark.parametrize("size", [0, 3, 5, 8_000_000])
def test_a_parcel_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(ProtocolError, match="array payload"):
        read_parcel(parcel(bytes(size)), 4)


def test_more_bytes_than_the_limit_are_refused() -> None:
    assert len(read_bounded(parcel(bytes(100)), 100)) == 100
    with pytest.raises(ProtocolError, match="found '101 bytes', expected at most 100"):
        read_bounded(parcel(bytes(101)), 100)


@pytest.mark.parametrize(
    "names",
    [{"names": "ada"}, {"names": [1, 2]}, {"names": [b"ada"]}, {"names": ["ada"], "more": 1}, {"other": ["ada"]}, {}],
    ids=["text", "numbers", "bytes", "more", "another field", "nothing"],
)
def test_garbage_instead_of_names_is_refused(names: dict[str, object]) -> None:
    content = parcel(b"abc")
    content["names"] = ConfigRecord(names)  # type: ignore[arg-type]
    with pytest.raises(ProtocolError, match="names"):
        read_named(content, 3)


def test_bytes_that_should_have_names_are_refused_without() -> None:
    with pytest.raises(ProtocolError, match="payload and names"):
        read_named(parcel(b"abc"), 3)


def test_facts_with_anything_beside_them_are_refused() -> None:
    content = facts({"client": "ada"})
    assert read_facts(message(content)) == {"client": "ada"}
    content["more"] = ConfigRecord({"a": 1})
    with pytest.raises(ProtocolError):
        read_facts(message(content))
