from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fedpeft.errors import ProtocolError
from fedpeft.signing.keyfile import own_key, write_key
from fedpeft.signing.nodekey import node_public, own_node_key, read_node_key, require_node_public


def test_a_node_key_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "me" / "node.pem"
    public = node_public(own_node_key(path))
    assert node_public(own_node_key(path)) == public == require_node_public(public)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_other_keys_are_refused(tmp_path: Path) -> None:
    own_key(tmp_path / "ed25519.pem")
    write_key(tmp_path / "p256.pem", ec.generate_private_key(ec.SECP256R1()))
    for name in ("ed25519.pem", "p256.pem"):
        with pytest.raises(ProtocolError, match="expected a P-384 key"):
            read_node_key(tmp_path / name)


def test_only_a_public_key_as_it_is_written_here_is_one() -> None:
    small = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = small.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    good = (
        ec.generate_private_key(ec.SECP384R1())
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    for wrong in (b"", b"text", pem, good + b"\n", b"x" * 4000):
        with pytest.raises(ProtocolError, match="node key"):
            require_node_public(wrong)
