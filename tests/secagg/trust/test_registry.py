"""A federation's keys on the command line: made once, for their owners only, certified, pinned and revoked."""

import json
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fedpeft.cli.client import client
from fedpeft.cli.server import server
from fedpeft.errors import ProtocolError
from fedpeft.secagg.trust import Identity, Revocations
from fedpeft.secagg.trust.enrolling import Pinned, read_request
from fedpeft.secagg.trust.registry import Registry


def run(app, *arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def done(app, *arguments: object) -> str:
    result = run(app, *arguments)
    assert result.exit_code == 0, result.exception
    return result.stdout


def refused(app, *arguments: object) -> str:
    result = run(app, *arguments)
    assert isinstance(result.exception, ProtocolError)
    return str(result.exception)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    done(server, "init", tmp_path / "keys", "--federation", "f", "--operator", tmp_path / "stick")
    return tmp_path / "keys"


@pytest.fixture
def ada(keys: Path, tmp_path: Path) -> Path:
    """Return the folder of an enrolled client."""
    enrol(keys, tmp_path, "ada")
    return tmp_path / "ada"


def enrol(keys: Path, folder: Path, name: str) -> None:
    me, pinned = folder / name, keys / "pinned.json"
    request, certificate = folder / f"{name}.request", folder / f"{name}.certificate"
    done(client, "request", name, "--identity", me, "--pinned", pinned, "--out", request)
    done(server, "enrol", request, "--registry", keys / "registry", "--out", certificate)
    done(client, "accept", certificate, "--identity", me, "--pinned", pinned)


def test_secret_keys_are_their_owners_alone_and_the_operators_lies_where_it_was_wanted(keys, tmp_path, ada):
    secret = [keys / "registry" / "authority.pem", tmp_path / "stick" / "operator.pem", ada / "identity.pem"]
    for path in secret:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not (keys / "operator").exists()
    open_files = "".join(p.read_text() for p in (keys / "pinned.json", tmp_path / "ada.request"))
    assert "PRIVATE" not in open_files


def test_an_enrolled_client_is_one_that_a_run_accepts(keys, ada):
    pinned, identity = Pinned.read(keys / "pinned.json"), Identity.load(ada)
    identity.certificate.check(pinned.authority, "f", "ada", 0.0, Revocations())
    (entry,) = Registry(keys / "registry").entries()
    assert (entry.client, entry.public, entry.revoked) == ("ada", identity.certificate.public, False)
    assert "ada" in done(server, "clients", "--registry", keys / "registry")


def test_a_revoked_client_is_on_a_signed_list_and_can_come_back_with_a_new_key_only(keys, tmp_path, ada):
    registry, certificate = Registry(keys / "registry"), Identity.load(ada).certificate
    done(server, "revoke", "ada", "--registry", keys / "registry")
    with pytest.raises(ProtocolError, match="revoked"):
        certificate.check(registry.authority.public, "f", "ada", 0.0, registry.revocations())
    again = ("enrol", tmp_path / "ada.request", "--registry", keys / "registry", "--out", tmp_path / "x")
    assert refused(server, *again) == (
        "key of ada: found 'revoked', expected a new one; ask with another --identity folder"
    )
    assert not (tmp_path / "x").exists()
    (tmp_path / "new").mkdir()
    enrol(keys, tmp_path / "new", "ada")
    enrol(keys, tmp_path, "bob")
    done(server, "revoke", "bob", "--registry", keys / "registry")
    assert registry.revocations().version == 2
    rows = json.loads(done(server, "clients", "--registry", keys / "registry", "--json"))["clients"]
    assert [(row["client"], row["revoked"]) for row in rows] == [("ada", True), ("ada", False), ("bob", True)]


def test_a_revocation_list_of_somebody_else_is_noticed(keys, ada):
    path = keys / "registry" / "revocations.json"
    done(server, "revoke", "ada", "--registry", keys / "registry")
    listed = json.loads(path.read_text())
    path.write_text(json.dumps({**listed, "keys": []}))
    with pytest.raises(ProtocolError, match="signature of the authority"):
        Registry(keys / "registry").revocations()


def test_keys_are_never_overwritten_and_nothing_is_left_of_a_refusal(keys, tmp_path):
    before = (keys / "registry" / "authority.pem").read_bytes()
    assert "found 'a key'" in refused(server, "init", keys, "--federation", "f", "--operator", tmp_path / "other")
    assert (keys / "registry" / "authority.pem").read_bytes() == before
    assert not (tmp_path / "other").exists()
    assert "stick/operator.pem" in refused(
        server, "init", tmp_path / "fresh", "--federation", "f", "--operator", tmp_path / "stick"
    )
    assert not (tmp_path / "fresh").exists()


def test_what_does_not_belong_together_is_refused(keys, tmp_path, ada):
    done(server, "init", tmp_path / "foreign", "--federation", "g")
    registry = ("--registry", tmp_path / "foreign" / "registry", "--out", tmp_path / "x")
    assert refused(server, "enrol", tmp_path / "ada.request", *registry) == (
        f"request {tmp_path / 'ada.request'} federation: found 'f', expected g"
    )
    theirs = ("--identity", ada, "--pinned", tmp_path / "foreign" / "pinned.json")
    assert "signature of the authority for ada" in refused(client, "accept", tmp_path / "ada.certificate", *theirs)
    enrol(keys, tmp_path, "bob")
    mine = ("--identity", ada, "--pinned", keys / "pinned.json")
    assert "another key's certificate" in refused(client, "accept", tmp_path / "bob.certificate", *mine)
    assert Identity.load(ada).client == "ada"
    assert "make one with `fedpeft server init`" in refused(server, "clients", "--registry", tmp_path)
    assert "known: ada" in refused(server, "revoke", "zoe", "--registry", keys / "registry")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"client": 1}', '{"client": "a", "certificate": "zz"}'])
def test_files_that_are_none_are_one_line(keys, tmp_path, ada, content):
    (tmp_path / "bad").write_text(content)
    for arguments in (
        (client, "accept", tmp_path / "bad", "--identity", ada, "--pinned", keys / "pinned.json"),
        (client, "request", "a", "--identity", ada, "--pinned", tmp_path / "bad", "--out", tmp_path / "y"),
        (server, "enrol", tmp_path / "bad", "--registry", keys / "registry", "--out", tmp_path / "y"),
    ):
        assert str(tmp_path / "bad") in refused(*arguments)
    assert not (tmp_path / "y").exists()


def test_a_request_with_a_proof_of_another_name_is_refused(keys, tmp_path, ada):
    fields = json.loads((tmp_path / "ada.request").read_text())
    (tmp_path / "eve.request").write_text(json.dumps({**fields, "client": "eve"}))
    assert read_request(tmp_path / "eve.request", "f").client == "eve"
    arguments = ("--registry", keys / "registry", "--out", tmp_path / "x")
    assert "signature of eve on enrol" in refused(server, "enrol", tmp_path / "eve.request", *arguments)
