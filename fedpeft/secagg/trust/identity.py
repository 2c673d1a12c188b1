"""A client's identity: its name, its signing key and the certificate for it, in a folder of its own or in memory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from fedpeft.errors import ProtocolError
from fedpeft.files import write_private
from fedpeft.secagg.trust.certificate import Authority, Certificate, Enrolment
from fedpeft.signing.keyfile import read_key, write_key
from fedpeft.signing.signature import SigningKey, public_bytes

KEY, CERTIFICATE = "identity.pem", "certificate.json"


@dataclass(frozen=True)
class Identity:
    """Who a client is.

    Parameters
    ----------
    client : str
    key : SigningKey
    certificate : Certificate
    """

    client: str
    key: SigningKey
    certificate: Certificate

    def __post_init__(self) -> None:
        if self.certificate.public != public_bytes(self.key):
            raise ProtocolError(f"identity of {self.client}", "another key's certificate", "a certificate of its key")

    @classmethod
    def enrol(cls, client: str, authority: Authority, expiry: int) -> Identity:
        """Make a key and have it certified, where client and authority are one process: simulations and tests."""
        key = SigningKey.generate()
        return cls(client, key, authority.certify(Enrolment.of(client, authority.federation, key), expiry))

    def save(self, folder: Path) -> None:
        """Write key and certificate with owner-only permissions."""
        write_key(folder / KEY, self.key)
        write_certificate(folder / CERTIFICATE, self)

    @classmethod
    def load(cls, folder: Path) -> Identity:
        """Read an identity.

        Raises
        ------
        ProtocolError
            When a file is missing, damaged, or open to others.
        """
        key = read_key(folder / KEY)
        try:
            fields = json.loads((folder / CERTIFICATE).read_bytes())
            client, certificate = str(fields["client"]), bytes.fromhex(fields["certificate"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ProtocolError(
                f"certificate file in {folder}", str(error)[:80], "a client and its certificate"
            ) from error
        return cls(client, key, Certificate.from_bytes(certificate))


def write_certificate(path: Path, identity: Identity) -> None:
    """Write whose certificate it is, and the certificate."""
    fields = {"client": identity.client, "certificate": identity.certificate.to_bytes().hex()}
    write_private(path, json.dumps(fields).encode())
