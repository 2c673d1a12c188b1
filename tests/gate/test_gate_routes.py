"""Garbage, floods and secrets at the gate's routes."""

from __future__ import annotations

import http.client
import json
import logging
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fedpeft.gate.app import Gate
from fedpeft.gate.rate import Rate, household
from fedpeft.gate.token import Token
from fedpeft.secagg.trust.enrolling import Pinned, ask
from tests.gate.conftest import Clock, Place, opened


def call(place: Place, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, Any]]:
    trust = ssl.create_default_context(cafile=str(place.folder / "tls" / "ca.pem"))
    connection = http.client.HTTPSConnection(place.address, timeout=20, context=trust)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def body(place: Place, folder: Path, client: str = "ada", token: str = "") -> dict[str, str]:
    read = Token.parse(token or place.token(client))
    asked = ask(client, folder, Pinned.read(place.folder / "pinned.json"))
    return {"token": (read.id + read.secret).hex(), "request": asked}


GARBAGE = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b"[" * 10_000,
    b'{"token": 1, "request": "x"}',
    b'{"token": "zz", "request": "x"}',
    b'{"token": "' + b"0" * 48 + b'"}',
    b'{"token": "' + b"0" * 48 + b'", "request": "x", "more": 1}',
    b'{"token": "' + b"0" * 48 + b'", "request": "not json"}',
    b'{"token": "' + b"0" * 48 + b'", "request": "{\\"client\\": 1}"}',
    b'{"token": "' + b"0" * 48 + b'", "request": "' + b"[" * 9000 + b'"}',
]


@pytest.mark.parametrize("number", range(len(GARBAGE)))
def test_garbage_is_refused_in_one_line_and_certifies_nobody(gate: Place, number: int) -> None:
    status, said = call(gate, "POST", "/gate/enrol", GARBAGE[number])
    assert status == 400
    assert "\n" not in said["error"]["message"]
    assert gate.registry.entries() == []


def test_what_is_too_long_missing_or_asked_the_wrong_way_is_refused(gate: Place, tmp_path: Path) -> None:
    assert call(gate, "POST", "/gate/enrol", b"x" * 20_000)[0] == 413
    assert call(gate, "GET", "/gate/enrol")[0] == 405
    assert call(gate, "DELETE", "/gate/federation")[0] == 405
    for path in ("/", "/gate", "/gate/../gate/federation", "/gate/%00", "/v1/fleet/x"):
        assert call(gate, "GET", path)[0] == 404
    good = body(gate, tmp_path / "me")
    long = json.dumps({**good, "request": "x" * 15_000}).encode()
    assert call(gate, "POST", "/gate/enrol", long)[0] == 400
    assert call(gate, "POST", "/gate/enrol", json.dumps(good).encode())[0] == 200


def test_every_bad_token_gets_the_same_answer(gate: Place, tmp_path: Path) -> None:
    used = gate.token()
    first = body(gate, tmp_path / "one", token=used)
    assert call(gate, "POST", "/gate/enrol", json.dumps(first).encode())[0] == 200
    again = body(gate, tmp_path / "two", token=used)
    unknown = {**again, "token": "0" * 48}
    anothers = {**again, "token": body(gate, tmp_path / "x", "ben")["token"]}
    expired = body(gate, tmp_path / "three", "cleo")
    gate.clock.now += 3601
    answers = {
        json.dumps(call(gate, "POST", "/gate/enrol", json.dumps(sent).encode()))
        for sent in (again, unknown, anothers, expired)
    }
    assert len(answers) == 1
    assert answers.pop().startswith("[403")


def test_two_devices_that_race_with_one_token_get_one_certificate(gate: Place, tmp_path: Path) -> None:
    token = gate.token()
    sent = [json.dumps(body(gate, tmp_path / str(n), token=token)).encode() for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        statuses = sorted(pool.map(lambda data: call(gate, "POST", "/gate/enrol", data)[0], sent))
    assert statuses == [200, 403, 403, 403]


def test_no_secret_is_ever_logged(gate: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token = gate.token()
    good = body(gate, tmp_path / "me", token=token)
    for sent in (good, {**good, "token": good["token"][:-2] + "00"}, {**good, "request": "{}"}):
        call(gate, "POST", "/gate/enrol", json.dumps(sent).encode())
    assert "/gate/enrol certified ada" in caplog.text
    assert "refused" in caplog.text
    assert not any(part in caplog.text for part in (token, good["token"], good["token"][12:40]))


def test_who_asks_too_often_is_told_when_to_come_again(place: Place) -> None:
    with opened(Gate(place.notice, place.tokens, per_minute=3), place.folder) as port:
        place.address = f"127.0.0.1:{port}"
        statuses = [call(place, "GET", "/gate/federation")[0] for _ in range(4)]
    assert statuses == [200, 200, 200, 429]


def test_a_bucket_fills_again_and_a_household_has_one() -> None:
    clock = Clock()
    rate = Rate(60, clock)
    assert [rate.wait("10.0.0.1") for _ in range(60)] == [0.0] * 60
    assert 0 < rate.wait("10.0.0.1") <= 1
    assert rate.wait("10.0.0.2") == 0
    clock.now += 1
    assert rate.wait("10.0.0.1") == 0
    assert household("2001:db8::1") == household("2001:db8::ffff") != household("2001:db8:0:1::1")
    for n in range(5000):
        rate.wait(f"10.1.{n // 250}.{n % 250}")
    assert len(rate._buckets) <= 4096
