"""A device at the gate, over TLS: what it needs, what it believes, what it has when it is killed."""

from __future__ import annotations

import json
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from fedpeft.device.edge.home import Home
from fedpeft.device.edge.membership import Membership
from fedpeft.errors import FedpeftError, GateError, ProtocolError, ScenarioError, StoreError, TokenError
from fedpeft.gate import enrol, enrolling
from fedpeft.gate.app import Gate
from fedpeft.gate.notice import Notice, authority_of
from fedpeft.gate.token import Token
from fedpeft.secagg.trust import Identity
from fedpeft.secagg.trust.registry import admitted
from tests.gate.conftest import SCENARIO, Place, make_place, opened


def test_a_token_is_all_that_a_device_needs(gate: Place, tmp_path: Path) -> None:
    member = enrol(tmp_path / "me", gate.token())
    assert (member.client, member.federation, member.server) == ("ada", "chat", "127.0.0.1:8000")
    assert Membership.read(Home(tmp_path / "me").federation) == member
    assert Identity.load(member.identity).client == "ada"
    assert member.scenario.read_text() == SCENARIO
    assert member.ca.read_bytes() == (gate.folder / "tls" / "ca.pem").read_bytes()
    assert member.pinned.read_bytes() == (gate.folder / "pinned.json").read_bytes()
    assert list(admitted(gate.folder / "registry", time.time()).values()) == ["ada"]
    for path in (*member.identity.iterdir(), member.pinned, member.folder / "member.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_same_call_again_changes_nothing_and_a_new_token_renews(gate: Place, tmp_path: Path) -> None:
    token = gate.token()
    member = enrol(tmp_path / "me", token)
    before = Identity.load(member.identity).certificate
    enrol(tmp_path / "me", token)
    assert Identity.load(member.identity).certificate == before
    gate.clock.now += 86_400
    enrol(tmp_path / "me", gate.token())
    after = Identity.load(member.identity).certificate
    assert after.public == before.public
    assert after.expiry > before.expiry
    with pytest.raises(StoreError, match="use another --home"):
        enrol(tmp_path / "me", gate.token("ben"))
    with pytest.raises(TokenError, match="not accepted"):
        enrol(tmp_path / "you", token)
    with pytest.raises(StoreError, match="fedpeft client enrol"):
        Membership.read(Home(tmp_path / "you").federation)


@pytest.mark.parametrize("step", ["ask", "accept_answer", "_answer", "write_private", "write_whole"])
def test_killed_at_any_step_the_same_call_goes_on(
    gate: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    token, home = gate.token(), tmp_path / "me"

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(enrolling, step, killed)
        with pytest.raises(Killed):
            enrol(home, token)
    assert Membership.find(Home(home).federation) is None
    gate.clock.now += 86_400  # long after the token has expired
    if step == "ask":
        with pytest.raises(TokenError):
            enrol(home, token)
    else:
        assert enrol(home, token).client == "ada"
        assert len(gate.registry.entries()) == 1


def test_a_gate_of_another_authority_is_not_told_the_secret(place: Place, tmp_path: Path) -> None:
    other, seen = make_place(tmp_path / "other"), []
    gate = Gate(other.notice, other.tokens)
    with opened(gate, other.folder) as port:
        place.address = f"127.0.0.1:{port}"
        token = place.token()
        object.__setattr__(gate, "enrol", seen.append)
        with pytest.raises(TokenError, match="another authority"):
            enrol(tmp_path / "me", token)
        # One that repeats the right certificate, but has not its key, is not told either.
        object.__setattr__(gate, "notice", place.notice)
    with opened(gate, other.folder) as port:
        place.address = f"127.0.0.1:{port}"
        with pytest.raises(GateError, match="CERTIFICATE_VERIFY_FAILED"):
            enrol(tmp_path / "me", place.token())
    assert seen == []
    assert not Home(tmp_path / "me").federation.exists()


def test_an_answer_for_another_key_is_not_kept(gate: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = enrol(tmp_path / "other", gate.token("ben"))
    certificate = json.loads((stranger.identity / "certificate.json").read_text())
    monkeypatch.setattr(enrolling, "_answer", lambda *_: json.dumps(certificate).encode())
    with pytest.raises(ProtocolError, match="another key's"):
        enrol(tmp_path / "me", gate.token())
    assert Membership.find(Home(tmp_path / "me").federation) is None


def test_nobody_at_the_gate_is_one_line_that_says_where(place: Place, tmp_path: Path) -> None:
    with pytest.raises(GateError, match=r"gate 127\.0\.0\.1:1.*is it running"):
        enrol(tmp_path / "me", place.token())


def test_a_scenario_that_names_code_or_other_text_is_neither_offered_nor_taken(place: Place, tmp_path: Path) -> None:
    for federation in ("os:getcwd", "keyboard", "/etc"):
        (place.folder / "chat.toml").write_text(SCENARIO.replace("enrolled", federation))
        with pytest.raises(ScenarioError, match="devices bring their own text"):
            _ = place.notice
    (place.folder / "chat.toml").write_text(SCENARIO)
    forged = Notice(place.notice.pinned, place.notice.ca, SCENARIO.replace("enrolled", "os:getcwd"), "h:1")
    with opened(Gate(forged, place.tokens), place.folder) as port:
        place.address = f"127.0.0.1:{port}"
        with pytest.raises(ScenarioError):
            enrol(tmp_path / "me", place.token())


def test_other_routes_can_be_served_at_the_gate(place: Place) -> None:
    def hello(_request: object) -> PlainTextResponse:
        return PlainTextResponse("here")

    with opened(Gate(place.notice, place.tokens), place.folder, [Route("/versions", hello)]) as port:
        token = Token.fresh(f"127.0.0.1:{port}", authority_of(place.folder / "tls" / "ca.pem"), "ada")
        assert enrolling._Line(token, place.notice.ca).ask("GET", "/versions") == b"here"


def test_enrolling_imports_nothing_that_trains_or_serves() -> None:
    heavy = "{'torch', 'flwr', 'transformers', 'starlette', 'httpx', 'safetensors'}"
    code = f"import sys, fedpeft.gate, fedpeft.cli.membership; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_membership_that_was_damaged_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "member.json").write_text("{")
    with pytest.raises(FedpeftError, match="fedpeft client enrol"):
        Membership.find(tmp_path)


class Hostile:
    """A gate with the right certificate that says what a test wants."""

    def __init__(self, federation: bytes, enrolled: bytes = b"{}", status: int = 200) -> None:
        self._said, self._enrolled, self._status = federation, enrolled, status

    def app(self, _routes: object) -> Starlette:
        def said(_request: object) -> Response:
            return Response(self._said, self._status)

        def enrolled(_request: object) -> Response:
            return Response(self._enrolled)

        routes = [Route("/gate/federation", said), Route("/gate/enrol", enrolled, methods=["POST"])]
        return Starlette(routes=routes)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"", 200),
        (b"{}", 200),
        (b"[" * 100_000, 200),
        (b"\xff", 200),
        (b"x" * 300_000, 200),
        (b'{"pinned": "{}", "ca": "", "scenario": "", "server": ""}', 200),
        (b"nothing here", 404),
        (b'{"error": {"message": "' + b"z" * 5000 + b'"}}', 500),
        (b'{"error": []}', 429),
    ],
)
def test_whatever_a_gate_says_is_one_short_line_and_makes_no_member(
    place: Place, tmp_path: Path, said: bytes, status: int
) -> None:
    with opened(Hostile(said, status=status), place.folder) as port:
        place.address = f"127.0.0.1:{port}"
        with pytest.raises(FedpeftError) as error:
            enrol(tmp_path / "me", place.token())
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600
    assert not Home(tmp_path / "me").federation.exists()


@pytest.mark.parametrize("answer", [b"", b"{}", b'{"answer": "{}"}', b'{"answer": 1}', b'{"answer": "[[[["}'])
def test_an_answer_that_is_no_certificate_makes_no_member_and_the_call_can_be_repeated(
    place: Place, tmp_path: Path, answer: bytes
) -> None:
    with opened(Hostile(place.notice.to_bytes(), answer), place.folder) as port:
        place.address = f"127.0.0.1:{port}"
        token = place.token()
        with pytest.raises(FedpeftError):
            enrol(tmp_path / "me", token)
    assert Membership.find(Home(tmp_path / "me").federation) is None


def test_a_connection_that_is_cut_is_one_line(place: Place, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        place.address = f"127.0.0.1:{listening.getsockname()[1]}"

        def cut() -> None:
            connection, _ = listening.accept()
            connection.recv(10)
            connection.close()

        thread = threading.Thread(target=cut)
        thread.start()
        with pytest.raises(GateError, match="gate 127"):
            enrol(tmp_path / "me", place.token())
        thread.join()
