from __future__ import annotations

import json
import stat
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedpeft.cli.client import client
from fedpeft.cli.server import server as server_verbs
from fedpeft.errors import FedpeftError, ProtocolError, RunError
from fedpeft.federation.deployed.programs import Program, end_leftovers, remember, restarts, running
from fedpeft.federation.deployed.server_folder import ServerFolder
from fedpeft.federation.deployed.status import status_of
from fedpeft.federation.deployed.supervisor import Supervisor
from fedpeft.scenario import Scenario
from fedpeft.secagg.trust.enrolling import Pinned, ask, read_request
from fedpeft.secagg.trust.registry import Registry, admitted, revoked

from .federation import enrol, found


@pytest.fixture
def server(tmp_path: Path) -> ServerFolder:
    return found(tmp_path / "fed")


def refusal(verbs, *arguments: object) -> FedpeftError:
    result = CliRunner().invoke(verbs, [str(argument) for argument in arguments])
    assert isinstance(result.exception, FedpeftError), (result.output, result.exception)
    return result.exception


def test_what_init_makes_is_complete_and_its_secrets_are_their_owners_alone(tmp_path: Path) -> None:
    made = tmp_path / "fed"
    init = ["init", str(made), "--federation", "f", "--host", "fed.example.org", "--port", "8443"]
    result = CliRunner().invoke(server_verbs, init)
    assert result.exit_code == 0, result.output
    folder = ServerFolder(made)
    assert (folder.address, folder.settings.hosts) == ("127.0.0.1:8443", ["fed.example.org"])
    for secret in (folder.ca_key, folder.certificate_key, folder.secret, made / "operator" / "operator.pem"):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        assert stat.S_IMODE(secret.parent.stat().st_mode) == 0o700
    found = json.loads(CliRunner().invoke(server_verbs, ["status", str(made), "--json"]).stdout)
    assert (found["programs"], found["runs"], found["up"]) == ({}, [], False)
    assert found["clients"] == {"enrolled": 0, "online": None, "revoked": 0, "expired": 0, "expiring": []}
    assert 800 < found["certificate_days"] < 826
    assert "0 enrolled" in CliRunner().invoke(server_verbs, ["status", str(made)]).stdout
    assert "holds for 82" in CliRunner().invoke(server_verbs, ["renew", str(made)]).stdout
    assert "a DNS name" in str(refusal(server_verbs, "init", tmp_path / "x", "--federation", "f", "--host", "a b"))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("line", "expected"),
    [("port = 0", "port"), ("hots = []", "hots"), ("deadline = 'x'", "deadline"), ("=", "settings")],
)
def test_settings_that_are_wrong_are_refused_in_one_line(server: ServerFolder, line: str, expected: str) -> None:
    (server.path / "server.toml").write_text(line)
    with pytest.raises(RunError, match=expected) as error:
        ServerFolder(server.path)
    assert "\n" not in str(error.value)
    with pytest.raises(RunError, match="fedpeft server init"):
        ServerFolder(server.path / "flower")


def test_nodes_are_admitted_with_their_clients_certificates_and_go_with_them(
    server: ServerFolder, tmp_path: Path
) -> None:
    for name in ("ada", "ben"):
        enrol(server, name, tmp_path / name)
    enrol(server, "old", tmp_path / "old", days=1e-5)
    assert sorted(admitted(server.registry, time.time() + 2).values()) == ["ada", "ben"]
    assert status_of(server)["clients"]["enrolled"] >= 2
    Registry(server.registry).revoke("ada")
    assert list(admitted(server.registry, time.time() + 2).values()) == ["ben"]
    assert len(revoked(server.registry, server.pinned).keys) == 1


def test_a_node_key_is_one_clients_and_is_signed_by_them(server: ServerFolder, tmp_path: Path) -> None:
    enrol(server, "ada", tmp_path / "ada")
    pinned, theirs = Pinned.read(server.pinned_file), tmp_path / "request"
    (tmp_path / "ben").mkdir()
    (tmp_path / "ben" / "node.pem").write_bytes((tmp_path / "ada" / "node.pem").read_bytes())
    (tmp_path / "ben" / "node.pem").chmod(0o600)
    theirs.write_text(ask("ben", tmp_path / "ben", pinned))
    with pytest.raises(ProtocolError, match="node key of ben: found 'that of ada'"):
        Registry(server.registry).certify(read_request(theirs, "loopback"), 2**40)
    fields = json.loads(theirs.read_text())
    theirs.write_text(json.dumps({**fields, "node_proof": "00" * 64}))
    with pytest.raises(ProtocolError, match="signature of ben on node"):
        Registry(server.registry).certify(read_request(theirs, "loopback"), 2**40)
    assert [entry.client for entry in Registry(server.registry).entries()] == ["ada"]


def test_a_program_that_dies_is_started_again_and_what_is_left_behind_is_ended(tmp_path: Path) -> None:
    program, other = Program("sleeper", ["sleep", "60"], tmp_path), Program("other", ["sleep", "60"], tmp_path / "x")
    other.home.mkdir()
    program.keep()
    program.process.kill()
    program.process.wait()
    assert program.keep() == "sleeper ended with -9; it is started again"
    for _ in range(40):
        program.keep()
        if program.process is not None:
            break
        time.sleep(0.1)
    other.keep()
    remember(tmp_path, [program], {"serverapp": [1.0, time.time()]})
    assert running(tmp_path) == {"sleeper": program.process.pid}
    assert restarts(tmp_path, time.time() - 60) == {"sleeper": 2, "serverapp": 1}
    known = json.loads((tmp_path / "programs.json").read_text())
    (tmp_path / "programs.json").write_text(json.dumps({"sleeper": {**known["sleeper"], "born": 1.0}}))
    assert running(tmp_path) == {}  # another process with the same number
    (tmp_path / "programs.json").unlink()
    assert end_leftovers(tmp_path) == 1  # whatever was written down
    assert program.process.poll() is not None
    assert end_leftovers(tmp_path) == 0
    assert other.process.poll() is None  # another server's
    other.stop()


def test_a_run_is_begun_with_the_operators_key_that_clients_pin_only(
    server: ServerFolder, tiny: Scenario, tmp_path: Path
) -> None:
    other = found(tmp_path / "other")
    with pytest.raises(RunError, match="operator's key"):
        Supervisor(server, tiny, other.path / "operator")
    Supervisor(server, tiny, server.path / "operator")
    with pytest.raises(RunError, match="another scenario"):
        Supervisor(server, tiny.with_seed(9), server.path / "operator")
    assert "server init" in str(refusal(server_verbs, "up", tmp_path, "simulations/smoke.toml"))


def test_a_device_joins_with_what_is_its_own_only(server: ServerFolder, tmp_path: Path) -> None:
    enrol(server, "ada", tmp_path / "me")
    other = found(tmp_path / "other")
    scenario = tmp_path / "s.toml"
    scenario.write_text('name = "s"\n[data]\nclients = 4\n[federation]\ncohort = 4\n')

    def joining(**changed: object) -> str:
        given = {"identity": tmp_path / "me", "pinned": server.pinned_file, "ca": server.ca, "scenario": scenario}
        options = [
            part for key, value in {**given, "server": "localhost:1", **changed}.items() for part in (f"--{key}", value)
        ]
        return str(refusal(client, "join", "--home", tmp_path / "device", *options))

    assert "host:port" in joining(server="localhost")
    assert "signature of the authority" in joining(pinned=other.pinned_file)
    assert "P-384 key" in joining() or "one of the 4 clients" in joining()
    assert "key file" in joining(identity=tmp_path)
