"""Secret keys are for their owner only, and are never overwritten."""

import stat

import pytest

from fedpeft.errors import ProtocolError
from fedpeft.secagg.trust import Authority, Identity
from fedpeft.signing.keyfile import read_key, write_key
from fedpeft.signing.signature import SigningKey


def test_a_key_file_and_its_folder_are_for_the_owner_only(tmp_path):
    key = SigningKey.generate()
    write_key(tmp_path / "keys" / "operator.pem", key)
    assert stat.S_IMODE((tmp_path / "keys" / "operator.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert read_key(tmp_path / "keys" / "operator.pem").private_bytes_raw() == key.private_bytes_raw()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_others_can_read_or_change_is_refused(tmp_path, mode):
    write_key(tmp_path / "k" / "key.pem", SigningKey.generate())
    (tmp_path / "k" / "key.pem").chmod(mode)
    with pytest.raises(ProtocolError, match="chmod 600"):
        read_key(tmp_path / "k" / "key.pem")


def test_a_key_is_not_overwritten(tmp_path):
    write_key(tmp_path / "k" / "key.pem", SigningKey.generate())
    with pytest.raises(ProtocolError, match="no file yet"):
        write_key(tmp_path / "k" / "key.pem", SigningKey.generate())


def test_what_is_no_key_is_refused(tmp_path):
    with pytest.raises(ProtocolError, match="can be read"):
        read_key(tmp_path / "absent.pem")
    (tmp_path / "bad.pem").write_bytes(b"no key")
    (tmp_path / "bad.pem").chmod(0o600)
    with pytest.raises(ProtocolError, match="PEM"):
        read_key(tmp_path / "bad.pem")


def test_an_identity_comes_back_from_its_folder(tmp_path):
    anna = Identity.enrol("anna", Authority.create("f"), 1000)
    anna.save(tmp_path / "anna")
    again = Identity.load(tmp_path / "anna")
    assert (again.client, again.certificate) == ("anna", anna.certificate)
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o600 for p in (tmp_path / "anna").iterdir())
    (tmp_path / "anna" / "certificate.json").write_text("{}")
    with pytest.raises(ProtocolError, match="a client and its certificate"):
        Identity.load(tmp_path / "anna")
