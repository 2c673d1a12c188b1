"""The plain channel: sums what fits and refuses what does not, without losing the round."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft.codecs import RingCodec
from fedpeft.errors import ProtocolError
from fedpeft.secagg import CHANNELS
from fedpeft.secagg.channel import PlainChannel


@pytest.fixture
def ring() -> RingCodec:
    return RingCodec(8, 1.0, 3)  # 85 levels


@pytest.fixture
def opener(ring):
    return PlainChannel().opener(ring, 4)


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
    channel = PlainChannel()
    opener = channel.opener(ring, length)
    for number, one in named:
        opener.add(f"client-{number}", channel.protect(one))
    assert opener.contributors == clients
    assert np.array_equal(opener.open(), expected)
    assert opener.open().dtype == np.uint64


def test_nobody_contributed_to_an_empty_sum(opener):
    assert opener.contributors == 0
    assert opener.open().tolist() == [0, 0, 0, 0]


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


def test_a_second_payload_of_one_client_is_refused(opener):
    opener.add("ada", payload(1, 2, 3, 4))
    with pytest.raises(ProtocolError, match="payload of ada: found 'one too many', expected one payload per client"):
        opener.add("ada", payload(1, 2, 3, 4))
    assert (opener.contributors, opener.open().tolist()) == (1, [1, 2, 3, 4])


def test_more_clients_than_the_ring_has_room_for_are_refused(opener):
    for client in ("ada", "bob", "cyd"):
        opener.add(client, payload(85, 85, 85, 85))
    with pytest.raises(ProtocolError, match="payload of dan: found 'one too many'"):
        opener.add("dan", payload(0, 0, 0, 0))
    assert opener.open().tolist() == [255] * 4


def test_the_payload_that_arrives_is_not_kept(opener):
    mine = payload(1, 2, 3, 4)
    opener.add("ada", mine)
    mine[:] = 9
    assert opener.open().tolist() == [1, 2, 3, 4]


def test_it_says_that_it_protects_nothing():
    channel = CHANNELS["plain"]()
    assert not channel.secure
    mine = payload(1, 2)
    assert np.array_equal(channel.protect(mine), mine)
