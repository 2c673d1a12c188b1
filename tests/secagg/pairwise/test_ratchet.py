"""Pair keys and seals: both ends agree at every step, nobody else does, and there is no way back."""

import os

import pytest

from fedpeft.errors import ProtocolError
from fedpeft.secagg.pairwise.ratchet import Chain, ExchangeKey, mask_seed
from fedpeft.secagg.pairwise.seal import SEALED, seal, unseal


def chains(manifest=b"m", ids=("a", "b")):
    one, two = ExchangeKey.generate(), ExchangeKey.generate()
    return (
        Chain.begin(one, two.public_key().public_bytes_raw(), manifest, ids),
        Chain.begin(two, one.public_key().public_bytes_raw(), manifest, ids[::-1]),
    )


def test_both_ends_agree_however_they_get_to_a_step():
    one, two = chains()
    assert one == two
    assert one.at(7) == two.at(2).at(3).at(7)
    assert len({one.at(step).key for step in range(20)}) == 20


def test_there_is_no_way_back():
    chain = chains()[0].at(5)
    with pytest.raises(ProtocolError, match="5 or later"):
        chain.at(4)


def test_manifest_names_and_context_all_matter():
    one, two = ExchangeKey.generate(), ExchangeKey.generate().public_key().public_bytes_raw()
    keys = {Chain.begin(one, two, m, ids).key for m in (b"m", b"n") for ids in (("a", "b"), ("a", "c"))}
    assert len(keys) == 4
    key = keys.pop()
    assert len({mask_seed(key, b"1"), mask_seed(key, b"2"), key}) == 3


def test_a_point_of_small_order_is_refused():
    with pytest.raises(ProtocolError, match="full order"):
        Chain.begin(ExchangeKey.generate(), bytes(32), b"m", ("a", "b"))


def test_a_sealed_share_opens_only_for_its_round_sender_and_receiver():
    key = os.urandom(32)
    sealed = seal(key, b"ctx", "a", "b", bytes(16))
    assert len(sealed) == SEALED
    assert unseal(key, b"ctx", "a", "b", sealed) == bytes(16)
    altered = bytes([sealed[0] ^ 1]) + sealed[1:]
    for wrong in (
        (key, b"xtc", "a", "b", sealed),
        (key, b"ctx", "b", "a", sealed),
        (key, b"ctx", "a", "c", sealed),
        (os.urandom(32), b"ctx", "a", "b", sealed),
        (key, b"ctx", "a", "b", altered),
    ):
        with pytest.raises(ProtocolError, match="sealed share"):
            unseal(*wrong)
