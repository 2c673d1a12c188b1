"""The manifest: signed by the operator, canonical, and within the client's own floors."""

from dataclasses import replace

import pytest

from fedpeft.errors import ProtocolError
from fedpeft.secagg.trust import Manifest, Policy, SignedManifest, Terms
from fedpeft.signing.signature import SigningKey, public_bytes

OPERATOR = SigningKey.generate()
TERMS = Terms("train", (10, 12), 16, 0.1, 6, 10)
MANIFEST = Manifest("f", "run", "00" * 32, (TERMS, replace(TERMS, purpose="evaluate")), 50, 0.1, 0.1, schema="s1")
POLICY = Policy(bytes(32), public_bytes(OPERATOR), "f")


def test_a_manifest_survives_the_wire():
    signed = SignedManifest.from_bytes(SignedManifest.of(MANIFEST, OPERATOR).to_bytes())
    assert POLICY.accept(signed) == MANIFEST
    assert Manifest.from_bytes(MANIFEST.to_bytes()).digest == MANIFEST.digest


def test_another_operator_or_byte_is_refused():
    with pytest.raises(ProtocolError, match="the operator"):
        POLICY.accept(SignedManifest.of(MANIFEST, SigningKey.generate()))
    signed = SignedManifest.of(MANIFEST, OPERATOR)
    with pytest.raises(ProtocolError, match="the operator"):
        POLICY.accept(replace(signed, body=signed.body.replace(b'"rounds":50', b'"rounds":51')))


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'"x"', b"[" * 50_000, MANIFEST.to_bytes() + b" "])
def test_only_the_canonical_bytes_of_a_manifest_are_read(body):
    with pytest.raises(ProtocolError, match="manifest"):
        Manifest.from_bytes(body)


def test_a_manifest_that_is_too_long_is_refused_unread():
    with pytest.raises(ProtocolError, match="length"):
        SignedManifest.from_bytes(bytes(70_000))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"n_min": 5}, "n_min"),  # ⌊(10 + 1)/2⌋ + 1 = 6: two disjoint sets of 5 could both be opened
        ({"n_max": 2, "n_min": 2}, "n_max"),
        ({"bits": 3}, "bits"),
        ({"bits": 33}, "bits"),
        ({"bits": 4, "n_max": 16, "n_min": 10}, "n_max"),
        ({"lengths": ()}, "lengths"),
        ({"lengths": (0,)}, "lengths"),
        ({"range": float("inf")}, "range"),
        ({"n_min": 11}, "n_min"),
    ],
)
def test_terms_that_cannot_be_safe_are_no_manifest(changes, word):
    with pytest.raises(ProtocolError, match=word):
        replace(MANIFEST, terms=(replace(TERMS, **changes),))


def test_purposes_are_named_once():
    with pytest.raises(ProtocolError, match="purposes"):
        replace(MANIFEST, terms=(TERMS, TERMS))


@pytest.mark.parametrize(
    ("floors", "word"),
    [
        ({"federation": "g"}, "federation"),
        ({"n_min": 7}, "n_min"),
        ({"rounds": 49}, "rounds"),
        ({"bits": (17, 32)}, "bits"),
        ({"corrupt": 0.2}, "corrupt"),
        ({"schema": "s2"}, "schema"),
        ({"privacy": "p"}, "privacy"),
    ],
)
def test_a_client_holds_the_manifest_against_its_own_floors(floors, word):
    with pytest.raises(ProtocolError, match=rf"manifest .*{word}.*policy"):
        replace(POLICY, **floors).accept(SignedManifest.of(MANIFEST, OPERATOR))


def test_rounds_and_purposes_have_one_clock_and_lengths_alternate():
    steps = [MANIFEST.step(r, p) for r in range(3) for p in ("train", "evaluate")]
    assert steps == list(range(6))
    assert [TERMS.length(r) for r in range(4)] == [10, 12, 10, 12]
    for wrong in ((51, "train"), (-1, "train"), (1, "spy")):
        with pytest.raises(ProtocolError):
            MANIFEST.step(*wrong)
