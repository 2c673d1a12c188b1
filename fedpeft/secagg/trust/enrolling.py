"""How a device gets its certificate: it makes a key, asks, and checks what comes back against what its app has pinned.

The request and the certificate may travel in the open, by any way: the secret key never leaves the device, and nobody
else can use either. What must be right is ``pinned.json``, which comes with the app.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from fedpeft.errors import ProtocolError
from fedpeft.secagg.trust.certificate import Certificate, Enrolment, Revocations
from fedpeft.secagg.trust.identity import CERTIFICATE, KEY, Identity, write_certificate
from fedpeft.signing.keyfile import own_key, read_key
from fedpeft.signing.nodekey import node_public, own_node_key

NODE_KEY = "node.pem"
"""A device's node key, beside its identity."""

_LIMIT = 65_536
_PROOFS = {"public": 32, "proof": 64, "node_proof": 64}


@dataclass(frozen=True)
class Pinned:
    """What an app knows of its federation.

    Parameters
    ----------
    federation : str
    authority, operator : bytes
        Public keys.
    """

    federation: str
    authority: bytes
    operator: bytes

    def to_json(self) -> str:
        """Return the content of ``pinned.json``."""
        keys = {"authority": self.authority.hex(), "operator": self.operator.hex()}
        return json.dumps({"federation": self.federation, **keys}, indent=2) + "\n"

    @classmethod
    def read(cls, path: Path) -> Pinned:
        """Read ``pinned.json``."""
        return cls.parse(_content(path), f"file {path}")

    @classmethod
    def parse(cls, data: bytes, where: str) -> Pinned:
        """Read the content of ``pinned.json``, wherever it came from."""
        fields = _fields(data, where, ("federation", "authority", "operator"))
        return cls(fields["federation"], _hex(fields["authority"], 32, where), _hex(fields["operator"], 32, where))


def ask(client: str, folder: Path, pinned: Pinned) -> str:
    """Make a client's keys, unless it has them, and return its request as JSON."""
    node = node_public(own_node_key(folder / NODE_KEY))
    asked = Enrolment.of(client, pinned.federation, own_key(folder / KEY), node)
    fields = {"client": client, "federation": pinned.federation, "public": asked.public.hex()}
    proofs = {"proof": asked.proof.hex(), "node": node.decode("ascii"), "node_proof": asked.node_proof.hex()}
    return json.dumps({**fields, **proofs}) + "\n"


def read_request(path: Path, federation: str) -> Enrolment:
    """Read a request from a file.

    Raises
    ------
    ProtocolError
        When it is none, or another federation's.
    """
    return parse_request(_content(path), federation, f"request {path}")


def parse_request(data: bytes, federation: str, where: str) -> Enrolment:
    """Read a request, wherever it came from; see :func:`read_request`."""
    fields = _fields(data, where, ("client", "federation", "public", "proof", "node", "node_proof"))
    if fields["federation"] != federation:
        raise ProtocolError(f"{where} federation", fields["federation"][:80], federation)
    node = fields["node"].encode("utf-8", "replace")
    public, proof, node_proof = (_hex(fields[name], size, where) for name, size in _PROOFS.items())
    return Enrolment(fields["client"], public, proof, node, node_proof)


def answer(client: str, certificate: Certificate) -> str:
    """Return what the registry gives a client, as JSON."""
    return json.dumps({"client": client, "certificate": certificate.to_bytes().hex()}) + "\n"


def accept(folder: Path, path: Path, pinned: Pinned, now: float) -> Identity:
    """Check a certificate in a file and put it beside the key that it is for.

    Raises
    ------
    ProtocolError
        When it is for another key, of another authority or federation, or expired; nothing is changed then.
    """
    return accept_answer(folder, _content(path), str(path), pinned, now)


def accept_answer(folder: Path, data: bytes, where: str, pinned: Pinned, now: float) -> Identity:
    """Check what the registry gave, however it came; see :func:`accept`."""
    fields = _fields(data, where, ("client", "certificate"))
    try:
        certificate = Certificate.from_bytes(bytes.fromhex(fields["certificate"]))
    except ValueError as error:
        raise ProtocolError(f"{where} certificate", fields["certificate"][:16], "hexadecimal digits") from error
    certificate.check(pinned.authority, pinned.federation, fields["client"], now, Revocations())
    identity = Identity(fields["client"], read_key(folder / KEY), certificate)
    write_certificate(folder / CERTIFICATE, identity)
    return identity


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LIMIT)
    except OSError as error:
        raise ProtocolError(f"file {path}", error.strerror, "a file that can be read") from error


def _fields(data: bytes, where: str, names: tuple[str, ...]) -> dict[str, str]:
    try:
        found = json.loads(data)
        return {name: str(found[name]) for name in names}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ProtocolError(where, str(error)[:80], f"JSON with {', '.join(names)}") from error


def _hex(value: str, length: int, where: str) -> bytes:
    try:
        data = bytes.fromhex(value)
    except ValueError:
        data = b""
    if len(data) != length:
        raise ProtocolError(where, value[:16], f"{length} bytes in hexadecimal")
    return data
