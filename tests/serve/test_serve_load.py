"""Too much at once, clients that go away, and the end of the service."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from fedpeft.errors import ServeError
from fedpeft.serve.faults import Fault
from fedpeft.serve.limits import Admission, Limits

ENDLESS = {"prompt": "I am", "temperature": 0, "max_tokens": 10_000, "stream": True}


def gauge(running, name: str) -> float:
    lines = running.service.metrics.text().decode().splitlines()
    return float(next(line.split()[-1] for line in lines if line.startswith(f"{name} ")))


def hold(running, user: str, streams: list) -> httpx.Response:
    """Begin an answer and leave it unread, its row taken."""
    client = running.client(user)
    body = ENDLESS | {"model": user}
    response = client.send(client.build_request("POST", "/v1/completions", json=body), stream=True)
    streams.append((client, response))
    return response


@pytest.fixture
def streams():
    held = []
    yield held
    for client, response in held:
        response.close()
        client.close()


@pytest.fixture
def slow(serve_with, monkeypatch):
    """A service of two slots whose steps take long enough to look at it meanwhile."""

    def start(**limits):
        running = serve_with(Limits(**{"slots": 2, "tokens": 480, "drain_s": 0.5, **limits}))
        rows = running.service.scheduler._rows
        step = rows.step

        def slowly(tokens):
            time.sleep(0.02)
            return step(tokens)

        monkeypatch.setattr(rows, "step", slowly)
        return running

    return start


def test_a_person_with_too_much_under_way_is_told_when_to_come_again_and_others_are_served(slow, people, streams, wait):
    running = slow(per_user=1)
    assert hold(running, people.endless, streams).status_code == 200
    short = {"model": people.endless, "prompt": "I am", "max_tokens": 2}
    refused = running.post(people.endless, "/v1/completions", **short)
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert running.post("both", "/v1/completions", **short | {"model": "base"}).status_code == 200
    streams[0][1].close()
    wait(lambda: gauge(running, "fedpeft_rows") == 0)
    assert running.post(people.endless, "/v1/completions", **short).status_code == 200


def test_a_full_queue_refuses_and_drains(slow, wait):
    running = slow(queue=6, tokens=8)
    names = [f"person{i:02}" for i in range(24)]

    def ask(name: str) -> int:
        return running.post(name, "/v1/completions", model=name, prompt="I am", temperature=2).status_code

    with ThreadPoolExecutor(24) as pool:
        found = list(pool.map(ask, names))
    assert set(found) == {200, 429}
    assert found.count(200) >= 6
    assert wait(lambda: gauge(running, "fedpeft_rows") == 0)
    assert ask("person63") == 200


def test_a_client_that_goes_away_frees_its_row_before_its_text_is_written(slow, people, streams, wait):
    running = slow()
    response = hold(running, people.endless, streams)
    lines = response.iter_lines()
    assert next(lines).startswith("data: ")
    assert wait(lambda: gauge(running, "fedpeft_rows") == 1)
    response.close()
    assert wait(lambda: gauge(running, "fedpeft_rows") == 0, 5)
    assert gauge(running, "fedpeft_cancelled_total") == 1
    assert gauge(running, "fedpeft_tokens_total") < 480


def test_a_client_that_waits_for_all_and_goes_away_frees_its_row_too(slow, people, wait):
    running = slow()
    body = json.dumps(ENDLESS | {"model": people.endless, "stream": False}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {running.tokens[people.endless]}\r\n"
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert wait(lambda: gauge(running, "fedpeft_rows") == 1)
    assert wait(lambda: gauge(running, "fedpeft_rows") == 0, 5)
    assert gauge(running, "fedpeft_cancelled_total") == 1
    assert gauge(running, "fedpeft_tokens_total") < 480


def test_those_who_wait_go_when_their_clients_go(slow, people, streams, wait):
    running = slow(slots=1)
    hold(running, people.endless, streams)
    assert wait(lambda: gauge(running, "fedpeft_rows") == 1)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(_impatient, running)
        with pytest.raises(httpx.ReadTimeout):
            asked.result()
    assert wait(lambda: gauge(running, "fedpeft_cancelled_total") == 1, 5)


def _impatient(running) -> None:
    headers = {"Authorization": f"Bearer {running.tokens['person63']}"}
    body = {"model": "person63", "prompt": "I am"}
    httpx.post(f"{running.url}/v1/completions", json=body, headers=headers, timeout=0.3)


def test_a_stream_that_waits_is_forgotten_when_its_client_goes(slow, people, streams, wait):
    running = slow(slots=1)
    hold(running, people.endless, streams)
    assert wait(lambda: gauge(running, "fedpeft_rows") == 1)
    waiting = hold(running, "person63", streams)
    assert wait(lambda: gauge(running, "fedpeft_waiting") == 1)
    waiting.close()
    assert wait(lambda: gauge(running, "fedpeft_waiting") == 0, 5)
    assert gauge(running, "fedpeft_rows") == 1


def test_an_answer_that_takes_too_long_is_given_up(slow, people):
    running = slow(timeout_s=0.3)
    whole = running.post(people.endless, "/v1/completions", **ENDLESS | {"model": people.endless, "stream": False})
    assert whole.status_code == 504
    assert whole.json()["error"]["code"] == "timeout"
    last = (
        running.post(people.endless, "/v1/completions", **ENDLESS | {"model": people.endless})
        .text.strip()
        .split("\n\n")[-1]
    )
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "timeout"


def test_at_the_end_waiting_requests_are_refused_and_begun_ones_have_their_time(slow, people, streams, wait):
    running = slow(slots=1, drain_s=1.0)
    response = hold(running, people.endless, streams)
    assert wait(lambda: gauge(running, "fedpeft_rows") == 1)
    with ThreadPoolExecutor(1) as pool:
        body = {"model": "person63", "prompt": "I am", "max_tokens": 2}
        queued = pool.submit(lambda: running.post("person63", "/v1/completions", **body))
        assert wait(lambda: gauge(running, "fedpeft_waiting") == 1)
        before = gauge(running, "fedpeft_tokens_total")
        running.server.handle_exit(15, None)
        refused = queued.result(timeout=5)
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "shutting_down"
    events = [line for line in response.iter_lines() if line]
    assert gauge(running, "fedpeft_tokens_total") > before
    assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "shutting_down"


def test_an_answer_that_can_be_finished_in_time_is_finished(slow, people, streams, wait):
    running = slow(drain_s=15.0, tokens=40)
    response = hold(running, people.endless, streams)
    streams.clear()
    assert wait(lambda: gauge(running, "fedpeft_rows") == 1)
    running.server.handle_exit(15, None)
    assert [line for line in response.iter_lines() if line][-1] == "data: [DONE]"


def test_a_step_that_fails_is_told_to_those_it_was_for_and_to_nobody_later(slow, monkeypatch, caplog):
    running = slow()
    rows = running.service.scheduler._rows
    step = rows.step

    def broken(tokens):
        monkeypatch.setattr(rows, "step", step)
        raise RuntimeError("secret words")

    monkeypatch.setattr(rows, "step", broken)
    body = {"model": "base", "prompt": "I am", "temperature": 0, "max_tokens": 5}
    failed = running.post("both", "/v1/completions", **body)
    assert failed.status_code == 500
    assert failed.json()["error"]["code"] == "internal_error"
    assert "secret words" not in caplog.text + failed.text
    assert running.post("both", "/v1/completions", **body).status_code == 200


@pytest.mark.parametrize("field", ["slots", "queue", "per_user", "tokens", "timeout_s", "drain_s", "body_bytes"])
def test_limits_that_let_nobody_in_are_refused(field):
    with pytest.raises(ServeError, match=field):
        Limits(**{field: 0})


def test_whoever_leaves_makes_room_even_after_an_error():
    admission = Admission(Limits(queue=1))
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), admission.enter("ada", 1.0):
            with pytest.raises(Fault) as refused, admission.enter("bob", 1.0):
                pass
            assert refused.value.status == 429
            raise ZeroDivisionError
    assert admission.total == 0
