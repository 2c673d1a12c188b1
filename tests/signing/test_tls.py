from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest

from fedpeft.errors import ProtocolError
from fedpeft.signing.tls import days_left, make_certificates, renew_certificate


def handshake(server: Path, trusted: Path, name: str) -> str:
    """Shake hands over a real connection as a device would; return what went wrong."""
    ours = ssl.create_default_context(cafile=str(trusted / "ca.pem"))
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(server / "server.pem", server / "server.key")
    here, there = socket.socketpair()
    done = threading.Thread(target=lambda: _serve(theirs, there))
    done.start()
    try:
        with ours.wrap_socket(here, server_hostname=name) as connection:
            return "" if connection.recv(2) == b"ok" else "no answer"
    except ssl.SSLError as error:
        return str(error)
    finally:
        here.close()
        done.join()


def _serve(context: ssl.SSLContext, connection: socket.socket) -> None:
    try:
        with context.wrap_socket(connection, server_side=True) as shaken:
            shaken.send(b"ok")
    except OSError:
        connection.close()


def test_devices_that_trust_the_authority_accept_the_server_under_its_names_and_no_other(tmp_path: Path) -> None:
    make_certificates(tmp_path / "a", "keyboard", ["fed.example.org", "10.0.0.5"])
    make_certificates(tmp_path / "b", "keyboard", [])
    for name in ("fed.example.org", "10.0.0.5", "localhost", "127.0.0.1"):
        assert handshake(tmp_path / "a", tmp_path / "a", name) == ""
    assert "mismatch" in handshake(tmp_path / "a", tmp_path / "a", "evil.example.org")
    assert "verify failed" in handshake(tmp_path / "a", tmp_path / "b", "fed.example.org")
    assert 800 < days_left(tmp_path / "a") < 826


def test_a_renewed_certificate_is_trusted_by_devices_that_know_the_authority_only(tmp_path: Path) -> None:
    make_certificates(tmp_path / "a", "keyboard", ["old.example.org"])
    authority, before = (tmp_path / "a" / "ca.pem").read_bytes(), (tmp_path / "a" / "server.pem").read_bytes()
    renew_certificate(tmp_path / "a", ["new.example.org"])
    assert (tmp_path / "a" / "ca.pem").read_bytes() == authority
    assert (tmp_path / "a" / "server.pem").read_bytes() != before
    assert handshake(tmp_path / "a", tmp_path / "a", "new.example.org") == ""


@pytest.mark.parametrize("host", ["", "a b", "fed.example.org:8000", "-x", "a" * 260, "https://x"])
def test_a_host_that_is_none_is_refused_before_anything_is_written(tmp_path: Path, host: str) -> None:
    with pytest.raises(ProtocolError, match="a DNS name or an IP address"):
        make_certificates(tmp_path / "a", "keyboard", [host])
    assert not (tmp_path / "a").exists()


def test_an_authority_is_never_overwritten(tmp_path: Path) -> None:
    make_certificates(tmp_path, "keyboard", [])
    with pytest.raises(ProtocolError, match="expected no file yet"):
        make_certificates(tmp_path, "keyboard", [])
