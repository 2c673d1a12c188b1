"""TLS for a server that no public authority knows: an authority of its own, and a certificate for its names.

Devices trust ``ca.pem`` alone, which comes with the app. Certificates begin a day early, for clocks that are behind.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedpeft.errors import ProtocolError
from fedpeft.files import private_folder, write_whole
from fedpeft.signing.keyfile import read_secret, require_free, write_key

CA, CA_KEY, SERVER, SERVER_KEY = "ca.pem", "ca.key", "server.pem", "server.key"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Every certificate names them: the server's own processes reach it there."""

_DAY = timedelta(days=1)
_CA_DAYS, _SERVER_DAYS = 3650, 825
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9-]{0,62})(\.[A-Za-z0-9-]{1,63})*")


def make_certificates(folder: Path, federation: str, hosts: Sequence[str]) -> None:
    """Write an authority and a server's certificate that it signed.

    Parameters
    ----------
    folder : Path
        Made with mode 700.
    federation : str
        For the certificates' subject.
    hosts : sequence of str
        Names and addresses under which devices reach the server, besides loopback.

    Raises
    ------
    ProtocolError
        When a host is no name or address, or there is an authority already.
    """
    names = [general_name(host) for host in dict.fromkeys((*LOOPBACK, *hosts))]
    require_free(folder / CA_KEY)
    private_folder(folder)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(f"{federation} authority")
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    authority = (
        _certificate(subject, subject, key.public_key(), _CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )
    write_key(folder / CA_KEY, key)
    write_whole(folder / CA, authority.public_bytes(Encoding.PEM))
    _certify(folder, federation, names, authority, key)


def renew_certificate(folder: Path, hosts: Sequence[str]) -> None:
    """Replace the server's key and certificate; devices notice nothing, they trust the authority.

    Raises
    ------
    ProtocolError
        When a host is no name or address, or the authority's key cannot be read.
    """
    names = [general_name(host) for host in dict.fromkeys((*LOOPBACK, *hosts))]
    key = read_secret(folder / CA_KEY)
    authority = read_certificate(folder / CA)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ProtocolError(f"key file {folder / CA_KEY}", type(key).__name__, "the authority's P-256 key")
    common = authority.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    (folder / SERVER_KEY).unlink(missing_ok=True)
    _certify(folder, str(common).removesuffix(" authority"), names, authority, key)


def days_left(folder: Path) -> float:
    """Return for how many days the server's certificate still holds; negative when it has expired."""
    expiry = read_certificate(folder / SERVER).not_valid_after_utc
    return (expiry - datetime.now(UTC)) / _DAY


def read_certificate(path: Path) -> x509.Certificate:
    """Read a certificate.

    Raises
    ------
    ProtocolError
        When the file is missing or holds none.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ProtocolError(f"certificate {path}", str(error)[:80], "a certificate in PEM") from error


def fingerprint(pem: bytes, where: str) -> bytes:
    """Return the sha256 of a certificate in DER, by which somebody can know it.

    Parameters
    ----------
    pem : bytes
    where : str
        For the message of an error.

    Raises
    ------
    ProtocolError
        When it is no certificate.
    """
    try:
        return x509.load_pem_x509_certificate(pem).fingerprint(SHA256())
    except ValueError as error:
        raise ProtocolError(f"{where} certificate", str(error)[:80], "a certificate in PEM") from error


def general_name(host: str) -> x509.GeneralName:
    """Return a host as certificates name it.

    Raises
    ------
    ProtocolError
        When it is neither a name nor an address.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        if len(host) > 253 or not _HOST.fullmatch(host):
            raise ProtocolError("host", host, "a DNS name or an IP address, without a port") from None
        return x509.DNSName(host)


def _certify(
    folder: Path,
    federation: str,
    names: Sequence[x509.GeneralName],
    authority: x509.Certificate,
    signer: ec.EllipticCurvePrivateKey,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    certificate = (
        _certificate(_subject(federation), authority.subject, key.public_key(), _SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .sign(signer, SHA256())
    )
    write_key(folder / SERVER_KEY, key)
    write_whole(folder / SERVER, certificate.public_bytes(Encoding.PEM))


def _certificate(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    today = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - _DAY)
        .not_valid_after(today + days * _DAY)
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
