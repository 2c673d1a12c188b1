"""A node's key: what a device shows to the SuperLink, which admits registered keys only.

It is a P-384 key because Flower wants a NIST curve, and it is another key than the identity: that one signs what a
client says in a round, which the SuperLink must not be able to ask for.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from fedpeft.errors import ProtocolError
from fedpeft.signing.keyfile import read_secret, write_key

NodeKey = ec.EllipticCurvePrivateKey

_CURVE = ec.SECP384R1
_LIMIT = 1024


def own_node_key(path: Path) -> NodeKey:
    """Return the node key in a file, which is made when there is none.

    Raises
    ------
    ProtocolError
        When others can read or change the file, or when it holds another kind of key.
    """
    if not path.exists():
        write_key(path, ec.generate_private_key(_CURVE()))
    return read_node_key(path)


def read_node_key(path: Path) -> NodeKey:
    """Read a node key.

    Raises
    ------
    ProtocolError
        When there is none, others can read or change it, or it is another kind of key.
    """
    key = read_secret(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, _CURVE):
        raise ProtocolError(f"key file {path}", type(key).__name__, "a P-384 key in PEM")
    return key


def node_public(key: NodeKey) -> bytes:
    """Return the public half as Flower sends and stores it: PEM."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def require_node_public(data: bytes) -> bytes:
    """Return what was given if it is exactly a public node key.

    Raises
    ------
    ProtocolError
    """
    try:
        key = load_pem_public_key(data) if len(data) <= _LIMIT else None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVE):
        raise ProtocolError("node key", data[:40], "a public P-384 key in PEM")
    if key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) != data:
        raise ProtocolError("node key", data[:40], "a public P-384 key in PEM, as it is written here")
    return data
