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
        fields = _fields(path, ("federation", "authority", "operator"))
        return cls(fields["federation"], _hex(path, fields["authority"], 32), _hex(path, fields["operator"], 32))


def ask(client: str, folder: Path, pinned: Pinned) -> str:
    """Make a client's keys, unless it has them, and return its request as JSON."""
    node = node_public(own_node_key(folder / NODE_KEY))
    asked = Enrolment.of(client, pinned.federation, own_key(folder / KEY), node)
    fields = {"client": client, "federation": pinned.federation, "public": asked.public.hex()}
    proofs = {"proof": asked.proof.hex(), "node": node.decode("ascii"), "node_proof": asked.node_proof.hex()}
    return json.dumps({**fields, **proofs}) + "\n"


def read_request(path: Path, federation: str) -> Enrolment:
    """Read a request.

    Raises
    ------
    ProtocolError
        When it is none, or another federation's.
    """
    fields = _fields(path, ("client", "federation", "public", "proof", "node", "node_proof"))
    if fields["federation"] != federation:
        raise ProtocolError(f"request {path} federation", fields["federation"], federation)
    node = fields["node"].encode("utf-8")
    public, proof, node_proof = (_hex(path, fields[name], size) for name, size in _PROOFS.items())
    return Enrolment(fields["client"], public, proof, node, node_proof)


def answer(client: str, certificate: Certificate) -> str:
    """Return what the registry gives a client, as JSON."""
    return json.dumps({"client": client, "certificate": certificate.to_bytes().hex()}) + "\n"


def accept(folder: Path, path: Path, pinned: Pinned, now: float) -> Identity:
    """Check a certificate and put it beside the key that it is for.

    Raises
    ------
    ProtocolError
        When it is for another key, of another authority or federation, or expired; nothing is changed then.
    """
    fields = _fields(path, ("client", "certificate"))
    try:
        certificate = Certificate.from_bytes(bytes.fromhex(fields["certificate"]))
    except ValueError as error:
        raise ProtocolError(f"{path} certificate", fields["certificate"][:16], "hexadecimal digits") from error
    certificate.check(pinned.authority, pinned.federation, fields["client"], now, Revocations())
    identity = Identity(fields["client"], read_key(folder / KEY), certificate)
    write_certificate(folder / CERTIFICATE, identity)
    return identity


def _fields(path: Path, names: tuple[str, ...]) -> dict[str, str]:
    try:
        found = json.loads(path.read_bytes()[:65_536])
        return {name: str(found[name]) for name in names}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProtocolError(f"file {path}", str(error)[:80], f"JSON with {', '.join(names)}") from error


def _hex(path: Path, value: str, length: int) -> bytes:
    try:
        data = bytes.fromhex(value)
    except ValueError:
        data = b""
    if len(data) != length:
        raise ProtocolError(f"file {path}", value[:16], f"{length} bytes in hexadecimal")
    return data
