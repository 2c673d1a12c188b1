"""The verbs of the gate, and the gate as a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedpeft.cli.client import client
from fedpeft.cli.server import server
from fedpeft.device.edge.home import Home
from fedpeft.errors import FedpeftError
from fedpeft.gate.token import Token
from tests.gate.conftest import Place


def said(verbs, *arguments: object, source: str | None = None, env: dict[str, str] | None = None) -> str:
    result = CliRunner().invoke(verbs, [str(argument) for argument in arguments], input=source, env=env)
    if isinstance(result.exception, FedpeftError):
        return f"refused {result.exception}"
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def test_tokens_are_made_listed_and_made_void(place: Place) -> None:
    registry = ("--registry", place.folder / "registry")
    token = Token.parse(said(server, "token", "ada", *registry))
    assert (token.gate, token.client) == ("127.0.0.1:8001", "ada")
    found = json.loads(said(server, "token", "ben", *registry, "--gate", "fed.example.org:443", "--json"))
    assert Token.parse(found["token"]).gate == "fed.example.org:443"
    listed = json.loads(said(server, "tokens", *registry, "--json"))["tokens"]
    assert [(entry["client"], entry["used"]) for entry in listed] == [("ada", False), ("ben", False)]
    assert "secret" not in str(listed)
    assert abs(listed[0]["expiry"] - time.time() - 86_400) < 60
    assert "ada" not in said(server, "tokens", *registry, "--revoke", "ada")
    assert "did you mean 'ben'" in said(server, "tokens", *registry, "--revoke", "bem")
    assert "host:port" in said(server, "token", "ada", *registry, "--gate", "nowhere")


@pytest.mark.parametrize("way", ["argument", "input", "variable"])
def test_a_device_enrols_with_a_token_from_wherever_it_is_not_seen(gate: Place, tmp_path: Path, way: str) -> None:
    token, home = gate.token(), ("--home", tmp_path / "me")
    chat = tmp_path / "chat.jsonl"
    chat.write_text('{"text": "hello"}\n{"text": "there"}\n')
    more = ("--agree", "--add", chat)
    if way == "argument":
        found = said(client, "enrol", token, *home, *more)
    elif way == "input":
        found = said(client, "enrol", "-", *home, *more, source=f"{token}\n")
    else:
        found = said(client, "enrol", *home, *more, env={"FEDPEFT_TOKEN": token})
    assert found == "ada is enrolled in chat; its server is 127.0.0.1:8000\n"
    kept = Home(tmp_path / "me").store().contents()
    assert (kept.messages, kept.consent) == (2, True)
    assert token not in found
    assert "not accepted" in said(client, "enrol", token, "--home", tmp_path / "you")
    assert "all of --server" in said(client, "join", *home, "--server", "h:1")


@pytest.mark.slow
def test_the_gate_runs_as_a_process_and_ends_when_it_is_told_to(place: Place, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fedpeft", "server", "gate", str(place.folder), str(place.folder / "chat.toml")]
    process = subprocess.Popen([*command, "--port", "0"], stderr=subprocess.PIPE, text=True, env={**os.environ})
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        (port,) = re.findall(r":(\d+)/gate", line)
        place.address = f"127.0.0.1:{port}"
        assert "ada is enrolled" in said(client, "enrol", place.token(), "--home", tmp_path / "me")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert "/gate/enrol certified ada" in process.stderr.read()
    finally:
        process.kill()


def test_a_gate_without_a_federation_or_a_fitting_scenario_is_one_line(place: Place, tmp_path: Path) -> None:
    assert "registry" in said(server, "token", "ada", "--registry", tmp_path)
    assert "fedpeft server init" in said(server, "gate", tmp_path, place.folder / "chat.toml")
    (tmp_path / "other.toml").write_text('name = "x"\n[data]\nfederation = "keyboard"\n')
    assert "devices bring their own text" in said(server, "gate", place.folder, tmp_path / "other.toml")
