"""One seed, many streams: each label its own, the same on every machine."""

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from fedpeft.seeds import derive, stream

labels = st.lists(st.one_of(st.text(max_size=8), st.integers(0, 99)), max_size=4)
seeds = st.integers(0, 2**63)


def test_a_derived_seed_is_the_documented_hash():
    digest = sha256(b"fedpeft-seed/v1" + (7).to_bytes(16, "little"))
    for label in (b"train", b"3"):
        digest.update(len(label).to_bytes(4, "little") + label)
    assert derive(7, "train", 3) == int.from_bytes(digest.digest()[:8], "little") // 2


@given(seeds, labels)
def test_a_derived_seed_fits_every_generator_and_repeats(seed, path):
    assert 0 <= derive(seed, *path) < 2**63
    assert derive(seed, *path) == derive(seed, *path)


@given(seeds, labels, labels)
def test_different_labels_give_different_streams(seed, one, other):
    if [str(label) for label in one] != [str(label) for label in other]:
        assert derive(seed, *one) != derive(seed, *other)


def test_labels_are_not_merely_joined():
    assert derive(0, "a", "bc") != derive(0, "ab", "c")
    assert derive(0) != derive(1)


def test_a_stream_starts_anew_every_time_it_is_asked_for():
    assert stream(1, "order").random(4).tolist() == stream(1, "order").random(4).tolist()
    assert stream(1, "order").random(4).tolist() != stream(1, "noise").random(4).tolist()
