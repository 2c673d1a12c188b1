"""The canonical encoding: different lists never give the same bytes."""

from hypothesis import given
from hypothesis import strategies as st

from fedpeft.signing.encoding import derive, digest, enc, extract

fields = st.lists(st.one_of(st.binary(max_size=6), st.sampled_from([b"", b"a", b"ab", b"\0\0\0\1a"])), max_size=5)


@given(st.sampled_from(["a", "ab", ""]), fields, st.sampled_from(["a", "ab", ""]), fields)
def test_two_encodings_are_equal_only_when_label_and_fields_are(label, some, other_label, others):
    assert (enc(label, *some) == enc(other_label, *others)) == ((label, some) == (other_label, others))


def test_the_bytes_are_those_of_the_documentation():
    assert enc("ab", b"xyz", 5).hex() == (
        b"fedpeft-sa/v1".hex()
        + "00000002"
        + "6162"
        + "00000002"
        + "00000003"
        + "78797a"
        + "00000008"
        + "0000000000000005"
    )


def test_uses_are_apart():
    key = bytes(32)
    found = {derive(key, "mask"), derive(key, "seal"), extract(key, "mask"), digest("mask"), derive(key, "mask", b"")}
    assert len(found) == 5
