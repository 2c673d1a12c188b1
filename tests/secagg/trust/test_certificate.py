"""Certificates and revocation: only whom the registry certified, for that name, in time, and not revoked."""

import pytest

from fedpeft.errors import ProtocolError
from fedpeft.secagg.trust import Authority, Certificate, Enrolment, Identity, Revocations
from fedpeft.signing.signature import SigningKey, public_bytes, sign

NONE = Revocations()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("f")


@pytest.fixture(scope="module")
def anna(authority) -> Identity:
    return Identity.enrol("anna", authority, 1000)


def test_a_certificate_survives_the_wire_and_is_accepted(authority, anna):
    again = Certificate.from_bytes(anna.certificate.to_bytes())
    assert again == anna.certificate
    again.check(authority.public, "f", "anna", 999.0, NONE)


@pytest.mark.parametrize(
    ("federation", "client", "now", "word"),
    [("g", "anna", 0, "certificate"), ("f", "berta", 0, "berta"), ("f", "anna", 1000, "expired")],
)
def test_another_federation_name_or_time_is_refused(authority, anna, federation, client, now, word):
    with pytest.raises(ProtocolError, match=word):
        anna.certificate.check(authority.public, federation, client, now, NONE)


def test_a_self_made_certificate_is_refused(authority):
    forged = Identity.enrol("anna", Authority.create("f"), 1000)
    with pytest.raises(ProtocolError, match="signature of the authority"):
        forged.certificate.check(authority.public, "f", "anna", 0, NONE)


def test_every_altered_bit_is_noticed(authority, anna):
    data = anna.certificate.to_bytes()
    for bit in range(0, 8 * len(data), 7):
        altered = bytearray(data)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ProtocolError):
            Certificate.from_bytes(bytes(altered)).check(authority.public, "f", "anna", 0, NONE)


def test_nobody_gets_a_certificate_for_a_key_they_do_not_hold(authority):
    stolen = Enrolment("anna", public_bytes(SigningKey.generate()), bytes(64))
    with pytest.raises(ProtocolError, match="anna on enrol"):
        authority.certify(stolen, 1000)


def test_a_revoked_key_is_refused_and_a_new_one_of_the_same_client_is_not(authority, anna):
    revoked = authority.revoke(1, [anna.certificate.public])
    revoked.check(authority.public, "f")
    with pytest.raises(ProtocolError, match="revoked"):
        anna.certificate.check(authority.public, "f", "anna", 0, revoked)
    Identity.enrol("anna", authority, 1000).certificate.check(authority.public, "f", "anna", 0, revoked)


def test_a_revocation_list_survives_its_file_and_must_be_signed(authority):
    revoked = authority.revoke(3, [bytes(32), bytes([1]) * 32])
    assert Revocations.from_bytes(revoked.to_bytes()) == revoked
    shorter = Revocations(3, frozenset([bytes(32)]), revoked.signature)
    for wrong in (shorter, Revocations(4, revoked.keys, revoked.signature), Revocations(1)):
        with pytest.raises(ProtocolError, match="revocations"):
            wrong.check(authority.public, "f")


def test_an_identity_has_the_certificate_of_its_own_key(anna):
    with pytest.raises(ProtocolError, match="identity of anna"):
        Identity("anna", SigningKey.generate(), anna.certificate)


def test_a_signature_for_one_purpose_is_none_for_another(authority, anna):
    public = anna.certificate.public
    swapped = sign(authority.key, "revocations", "f", "anna", public, 1000)
    with pytest.raises(ProtocolError):
        Certificate(public, 1000, swapped).check(authority.public, "f", "anna", 0, NONE)
