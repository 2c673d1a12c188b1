"""Messages of any other length than the one that follows from the round: refused before a byte is looked at."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict

from fedpeft.errors import ProtocolError
from fedpeft.federation.folder import RunFolder
from fedpeft.federation.messages import parcel
from fedpeft.federation.worker import Worker
from fedpeft.secagg.pairwise.rehearsal import Rehearsal
from fedpeft.secagg.pairwise.wire import contribution_length
from fedpeft.secagg.trust import SignedManifest
from tests.federation.secure_rounds import by_hand, names, open_rounds, start

from .crook import EVERYBODY, NAMES, Crook, payloads

SIZES: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda data: b"",
    "one byte": lambda data: data[:1],
    "one less": lambda data: data[:-1],
    "one more": lambda data: data + b"\0",
    "half": lambda data: data[: len(data) // 2],
    "twice": lambda data: data * 2,
    "a megabyte": lambda data: data + bytes(1 << 20),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stage", ["survivors", "pairs", "lock", "unmask"])
def test_a_client_refuses_a_request_of_another_length(stage: str, size: str, run: Rehearsal) -> None:
    crook = Crook(run)
    anna = run.clients[NAMES[0]]
    if stage == "survivors":
        request = crook.request(stage, EVERYBODY)
    elif stage == "unmask":
        request = crook.opening(0, EVERYBODY, crook.locks(EVERYBODY))
    else:
        signatures = crook.survivors(EVERYBODY)
        request = crook.request(stage, EVERYBODY, b"".join(signatures[i] for i in EVERYBODY))
    with pytest.raises(ProtocolError, match=f"{stage} request length"):
        anna.answer(stage, SIZES[size](request))
    # The refusal has not used up the request: the right one is answered.
    assert anna.answer(stage, request)


@pytest.mark.parametrize("size", SIZES)
def test_a_client_refuses_a_directory_and_a_manifest_of_another_length(size: str, run: Rehearsal) -> None:
    anna = run.clients[NAMES[0]]
    with pytest.raises(ProtocolError, match="directory length"):
        anna.meet(NAMES, SIZES[size](run.server.directory(NAMES)))
    with pytest.raises(ProtocolError):
        run.policy.accept(SignedManifest.from_bytes(SIZES[size](run.signed.to_bytes())))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stage", ["keys", "contribute", "survivors", "pairs", "lock", "unmask"])
def test_a_server_refuses_a_reply_of_another_length_and_goes_on_without(stage: str, size: str, run: Rehearsal) -> None:
    change, victim = SIZES[size], NAMES[2]
    if stage == "keys":
        with pytest.raises(ProtocolError, match="keys length"):
            run.server.join(victim, change(run.clients[victim].keys()))
        return
    sent = payloads()
    collected = run.server.open_round(1, "train", "model", NAMES)
    for name in NAMES:
        message = run.clients[name].contribute(1, "train", "model", NAMES, sent[name])
        if (stage, name) == ("contribute", victim):
            with pytest.raises(ProtocolError, match=f"contribution of {victim} length"):
                collected.add(name, change(message))
        else:
            collected.add(name, message)
    while (asked := collected.requests()) is not None:
        now, requests = asked
        for name, request in requests.items():
            if stage == "pairs" and now == "survivors" and name == NAMES[5]:
                continue
            reply = run.clients[name].answer(now, request)
            if (now, name) == (stage, victim):
                with pytest.raises(ProtocolError, match=f"{stage} reply of {victim} length"):
                    collected.answer(now, name, change(reply))
            else:
                collected.answer(now, name, reply)
    total, contributors = collected.sum()
    assert (victim in contributors) == (stage in ("lock", "unmask"))
    assert np.array_equal(total, np.sum([sent[name] for name in contributors], axis=0, dtype=np.uint64))


def test_a_long_message_costs_a_server_no_more_memory_than_its_bytes(run: Rehearsal) -> None:
    collected = run.server.open_round(1, "train", "model", NAMES)
    message = bytes(50_000_000)
    tracemalloc.start()
    with pytest.raises(ProtocolError, match="length"):
        collected.add(NAMES[0], message)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000
    assert len(message) > 1000 * contribution_length(collected.context)


CONTENTS: dict[str, Callable[[bytes], RecordDict]] = {
    "nothing": lambda data: RecordDict(),
    "an empty parcel": lambda data: parcel(b""),
    "one byte less": lambda data: parcel(data[:-1]),
    "one byte more": lambda data: parcel(data + b"\0"),
    "a megabyte more": lambda data: parcel(data + bytes(1 << 20)),
    "no bytes": lambda data: RecordDict({"payload": ConfigRecord({"payload": data.hex()})}),
    "another field beside it": lambda data: RecordDict({"payload": ConfigRecord({"payload": data, "more": 1})}),
    "a shape that lies": lambda data: _array("uint8", (len(data) + 1,), data),
    "another type": lambda data: _array("float32", (len(data) // 4,), data),
    "a pickle": lambda data: _array("uint8", (len(data),), data, stype="numpy.ndarray"),
    "names beside it": lambda data: parcel(data, ["ada"]),
    "numbers beside it": lambda data: RecordDict({**parcel(data), "more": ConfigRecord({"a": 1})}),
    "two arrays": lambda data: RecordDict({**parcel(data), "again": ArrayRecord({"payload": _one(data)})}),
}


def _one(data: bytes) -> Array:
    return Array("uint8", (len(data),), "fedpeft.opaque", data)


def _array(dtype: str, shape: tuple[int, ...], data: bytes, stype: str = "fedpeft.opaque") -> RecordDict:
    return RecordDict({"payload": ArrayRecord({"payload": Array(dtype, shape, stype, data)})})


def _bytes(content: RecordDict) -> bytes:
    return bytes(content.config_records["payload"]["payload"])


class Spoilt:
    """A mod by which the third client's messages of one kind, to it or from it, are others."""

    def __init__(self, kind: str, replies: bool) -> None:
        self.kind, self.replies, self.case = kind, replies, ""

    def __call__(self, message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
        if message.metadata.message_type != self.kind or context.node_config["partition-id"] != 2 or not self.case:
            return call_next(message, context)
        if self.replies:
            content = CONTENTS[self.case](_bytes(call_next(message, context).content))
            return Message(content, reply_to=message)
        message.content = CONTENTS[self.case](_bytes(message.content))
        return call_next(message, context)


Federation = tuple[Worker, RunFolder, dict[str, str]]


@pytest.fixture
def federation(worker: Worker, folder: RunFolder, config: dict[str, str]) -> Federation:
    return worker, folder, config


@pytest.mark.parametrize("kind", ["train", "query.survivors", "query.lock", "query.unmask"])
def test_over_flower_a_reply_of_another_form_is_a_failure_and_the_sum_is_the_others(
    kind: str, federation: Federation
) -> None:
    worker, spoilt = federation[0], Spoilt(kind, replies=True)
    run = open_rounds(*federation, spoilt)
    left_out = () if kind in ("query.lock", "query.unmask") else (2,)
    for round_, spoilt.case in enumerate(CONTENTS, 1):
        row, after = run.one(round_, start(worker))
        assert row["reasons"].keys() == {"user-02"}, spoilt.case
        assert row["contributors"] == 5 - len(left_out)
        if round_ == 1:
            assert np.array_equal(after.change, by_hand(worker, names(worker, *left_out)))


@pytest.mark.parametrize("kind", ["query.survivors", "query.lock", "query.unmask"])
def test_over_flower_a_request_of_another_form_is_refused(kind: str, federation: Federation) -> None:
    spoilt = Spoilt(kind, replies=False)
    run = open_rounds(*federation, spoilt)
    for round_, spoilt.case in enumerate(CONTENTS, 1):
        row, _ = run.one(round_, start(federation[0]))
        assert "ProtocolError" in row["reasons"]["user-02"], spoilt.case
    spoilt.case = ""
    row, _ = run.one(20, start(federation[0]))
    assert row["failures"] == 0


@pytest.mark.parametrize(("kind", "replies"), [("query.keys", True), ("query.keys", False), ("query.meet", False)])
def test_over_flower_a_session_begins_without_those_whose_messages_have_another_form(
    kind: str, replies: bool, federation: Federation
) -> None:
    spoilt = Spoilt(kind, replies)
    for spoilt.case in CONTENTS:
        run = open_rounds(*federation, spoilt)
        assert run.roll.skipped.keys() == {"user-02"}, spoilt.case
    row, _ = run.one(1, start(federation[0]))
    assert row["contributors"] == 4


def test_over_flower_a_request_of_many_megabytes_is_refused_by_its_size(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt = Spoilt("query.survivors", replies=False)
    monkeypatch.setitem(CONTENTS, "too much", lambda data: parcel(bytes((1 << 24) + 1)))
    spoilt.case = "too much"
    row, _ = open_rounds(*federation, spoilt).one(1, start(federation[0]))
    assert "found '16777217 bytes', expected at most 16777216" in row["reasons"]["user-02"]
