"""The plain channel: sums what fits and refuses what does not, without losing the round."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft.codecs import RingCodec
from fedpeft.errors import ProtocolError
from fedpeft.secagg import CHANNELS, SECURE, Asked, PlainEnd, PlainServer
from fedpeft.secagg.channel import PlainCollection, PlainOpener

ASKED = Asked(1, "train", "model", ("ada", "bob", "cyd"))


@pytest.fixture
def ring() -> RingCodec:
    return RingCodec(8, 1.0, 3)  # 85 levels


@pytest.fixture
def opener(ring):
    return PlainOpener(ring, 4)


@pytest.fixture
def collection(ring) -> PlainCollection:
    return PlainServer().collect(ASKED, ring, 4)


def payload(*values: int, kind=np.uint8) -> np.ndarray:
    return np.array(values, kind)


@settings(max_examples=60, deadline=None)
@given(st.integers(8, 32), st.integers(1, 40), st.integers(0, 30), st.randoms(), st.integers(0, 99))
def test_the_sum_is_numpys_whatever_the_order_of_arrival(bits, clients, length, random, seed):
    ring = RingCodec(bits, 1.0, clients)
    rng = np.random.default_rng(seed)
    payloads = [
        rng.integers(0, ring.levels, length, np.uint64, endpoint=True).astype(ring.dtype) for _ in range(clients)
    ]
    expected = np.sum(payloads, axis=0, dtype=np.uint64)
    named = list(enumerate(payloads))
    random.shuffle(named)
    end, collection = PlainEnd(), PlainServer().collect(ASKED, ring, length)
    for number, one in named:
        sent = end.protect(ASKED, one)
        assert len(sent) == collection.length
        collection.add(f"client-{number}", sent)
    assert collection.requests() is None
    total, contributors = collection.sum()
    assert contributors == clients
    assert np.array_equal(total, expected)
    assert total.dtype == np.uint64


def test_nobody_contributed_to_an_empty_sum(collection):
    total, contributors = collection.sum()
    assert (total.tolist(), contributors) == ([0, 0, 0, 0], 0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (payload(1, 2, 3), r"payload of eve: found 'uint8\(3,\)', expected uint8\(4,\)"),
        (payload(1, 2, 3, 4, 5), r"payload of eve: found 'uint8\(5,\)', expected uint8\(4,\)"),
        (payload(1, 2, 3, 4)[None], r"payload of eve: found 'uint8\(1, 4\)', expected uint8\(4,\)"),
        (payload(), r"payload of eve: found 'uint8\(0,\)', expected uint8\(4,\)"),
        (payload(1, 2, 3, 4, kind=np.uint16), r"payload of eve: found 'uint16\(4,\)', expected uint8\(4,\)"),
        (payload(1, 2, 3, 4, kind=np.int8), r"payload of eve: found 'int8\(4,\)', expected uint8\(4,\)"),
        (payload(1, 2, 3, 4, kind=np.float32), r"payload of eve: found 'float32\(4,\)', expected uint8\(4,\)"),
        (payload(1, 2, 3, 86), "payload of eve: found 86, expected ≤ 85"),
        (payload(255, 0, 0, 0), "payload of eve: found 255, expected ≤ 85"),
    ],
)
def test_a_payload_that_was_not_agreed_is_refused_and_leaves_no_trace(opener, bad, message):
    opener.add("ada", payload(1, 2, 3, 85))
    with pytest.raises(ProtocolError, match=message):
        opener.add("eve", bad)
    assert opener.contributors == 1
    assert opener.open().tolist() == [1, 2, 3, 85]
    opener.add("eve", payload(1, 1, 1, 1))
    assert opener.open().tolist() == [2, 3, 4, 86]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b"", "payload of eve: found '0 bytes', expected 4 bytes"),
        (b"\1\1\1", "payload of eve: found '3 bytes', expected 4 bytes"),
        (b"\1" * 5, "payload of eve: found '5 bytes', expected 4 bytes"),
        (b"\1" * 8, "payload of eve: found '8 bytes', expected 4 bytes"),
        (b"\1\1\1\x56", "payload of eve: found 86, expected ≤ 85"),
    ],
)
def test_bytes_that_were_not_agreed_are_refused_and_leave_no_trace(collection, bad, message):
    collection.add("ada", bytes([1, 2, 3, 85]))
    with pytest.raises(ProtocolError, match=message):
        collection.add("eve", bad)
    assert collection.sum()[1] == 1
    collection.add("eve", b"\1\1\1\1")
    total, contributors = collection.sum()
    assert (total.tolist(), contributors) == ([2, 3, 4, 86], 2)


def test_a_second_payload_of_one_client_is_refused(collection):
    collection.add("ada", bytes([1, 2, 3, 4]))
    with pytest.raises(ProtocolError, match="payload of ada: found 'one too many', expected one payload per client"):
        collection.add("ada", bytes([1, 2, 3, 4]))
    total, contributors = collection.sum()
    assert (total.tolist(), contributors) == ([1, 2, 3, 4], 1)


def test_more_clients_than_the_ring_has_room_for_are_refused(collection):
    for client in ASKED.cohort:
        collection.add(client, bytes([85] * 4))
    with pytest.raises(ProtocolError, match="payload of dan: found 'one too many'"):
        collection.add("dan", bytes(4))
    assert collection.sum()[0].tolist() == [255] * 4


def test_the_payload_that_arrives_is_not_kept(opener):
    mine = payload(1, 2, 3, 4)
    opener.add("ada", mine)
    mine[:] = 9
    assert opener.open().tolist() == [1, 2, 3, 4]


def test_nothing_is_asked_after_the_payloads_on_either_side(collection):
    with pytest.raises(ProtocolError, match="stage: found 'unmask', expected none, on the plain channel"):
        PlainEnd().answer("unmask", b"")
    with pytest.raises(ProtocolError, match="answer of ada: found 'unmask', expected none, on the plain channel"):
        collection.answer("unmask", "ada", b"")


def test_it_says_that_it_protects_nothing():
    assert "plain" not in SECURE
    assert CHANNELS["plain"] == "the server could read every update"
    assert PlainEnd().protect(ASKED, payload(1, 2)) == b"\1\2"


def test_every_other_channel_is_a_secure_one():
    assert CHANNELS.keys() - SECURE == {"plain"}
