"""What is refused, with which status, and that nobody learns of anybody else."""

import json
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft.serve.schema import ChatRequest, CompletionRequest, SuggestRequest

GOOD = {"model": "base", "prompt": "I am", "max_tokens": 2}
CHAT = {"model": "base", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"model": None}, 400, "model"),
        ({"model": ""}, 400, "model"),
        ({"model": 7}, 400, "model"),
        ({"prompt": None}, 400, "prompt"),
        ({"prompt": ["a", "b"]}, 400, "prompt"),
        ({"prompt": [1, 2, 3]}, 400, "prompt"),
        ({"temperature": -0.1}, 400, "temperature"),
        ({"temperature": 2.1}, 400, "temperature"),
        ({"temperature": "hot"}, 400, "temperature"),
        ({"top_p": 0}, 400, "top_p"),
        ({"top_k": -1}, 400, "top_k"),
        ({"repetition_penalty": 0}, 400, "repetition_penalty"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"max_tokens": 1.5}, 400, "max_tokens"),
        ({"n": 2}, 400, "n"),
        ({"best_of": 2}, 400, "best_of"),
        ({"echo": True}, 400, "echo"),
        ({"logprobs": 1}, 400, "logprobs"),
        ({"suffix": "!"}, 400, "suffix"),
        ({"presence_penalty": 0.5}, 400, "presence_penalty"),
        ({"logit_bias": {"5": 1}}, 400, "logit_bias"),
        ({"stop": ""}, 400, "stop"),
        ({"stop": ["a"] * 5}, 400, "stop"),
        ({"seed": "x"}, 400, "seed"),
        ({"temprature": 1}, 400, "temprature"),
        ({"prompt": "so " * 600}, 400, "prompt"),
        ({"prompt": "x" * 70_000}, 413, None),
    ],
)
def test_a_body_that_means_nothing_is_refused_naming_the_field(served, change, status, param):
    body = {key: value for key, value in (GOOD | change).items() if value is not None}
    response = served.post("both", "/v1/completions", **body)
    error = response.json()["error"]
    assert response.status_code == status
    assert (error["param"] or "").split(".")[0] == (param or "")
    assert set(error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "user"}],
        [{"role": "tool", "content": "x"}],
        [{"role": "system", "content": "x"}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}],
        [{"role": "user", "content": "so " * 600}],
        "hi",
    ],
)
def test_messages_that_mean_nothing_are_refused(served, messages):
    response = served.post("both", "/v1/chat/completions", model="base", messages=messages)
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith(("messages", "prompt"))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"a":' * 5000, b'{"model":NaN}'])
def test_what_is_no_json_object_is_refused(served, content):
    with served.client("both") as client:
        for path in ("/v1/completions", "/v1/chat/completions", "/v1/suggest"):
            response = client.post(path, content=content)
            assert response.status_code == 400
            assert "error" in response.json()


def test_neutral_values_of_what_is_not_supported_are_welcome(served):
    neutral = {
        "n": 1, "best_of": 1, "echo": False, "logprobs": None, "suffix": None, "presence_penalty": 0,
        "frequency_penalty": 0.0, "logit_bias": {}, "user": "somebody", "stop": None, "seed": None, "stream_options": None,
    }  # fmt: skip
    assert served.post("both", "/v1/completions", **GOOD, **neutral).status_code == 200
    parts = [{"type": "text", "text": "hi"}]
    body = CHAT | {"messages": [{"role": "user", "content": parts, "name": "x"}], "response_format": {"type": "text"}}
    assert served.post("both", "/v1/chat/completions", **body).status_code == 200


@pytest.mark.parametrize(
    ("user", "model", "status"),
    [
        ("person01", "person01", 200),
        ("both", "person00", 200),
        ("both", "base", 200),
        ("person01", "person00", 404),
        ("person01", "base", 404),
        ("person01", "global", 404),
        ("person01", "no-such-person", 404),
        ("person01", "../adapters/person01", 404),
        ("person01", "person01/../person00", 404),
        ("person01", "person01\x00", 404),
        ("person01", "PERSON01", 404),
        ("both", "nobody", 404),
        ("operator", "person00", 404),
    ],
)
def test_a_token_opens_its_own_adapters_and_the_rest_does_not_exist(served, user, model, status):
    for path, body in (
        ("/v1/completions", {"prompt": "I am", "max_tokens": 2}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}),
        ("/v1/suggest", {"text": "I am "}),
    ):
        response = served.post(user, path, model=model, **body)
        assert response.status_code == status, (path, response.text)
        if status == 404:
            error = response.json()["error"]
            assert error["message"] == f"The model {model!r} does not exist or you do not have access to it."
            assert error["code"] == "model_not_found"


def test_models_are_those_of_the_token_that_exist(served):
    for user, expected in (("person01", ["person01"]), ("both", ["base", "person00"]), ("operator", [])):
        with served.client(user) as client:
            assert [model["id"] for model in client.get("/v1/models").json()["data"]] == expected
            assert client.get("/v1/models/person02").status_code == 404


def header(served, kind: str) -> dict[str, str]:
    good = served.tokens["both"]
    return {
        "none": {},
        "empty": {"Authorization": ""},
        "no scheme": {"Authorization": good},
        "another scheme": {"Authorization": f"Basic {good}"},
        "no token": {"Authorization": "Bearer"},
        "a letter less": {"Authorization": f"Bearer {good[:-1]}"},
        "another letter": {"Authorization": f"Bearer {good[:-1]}{'A' if good[-1] != 'A' else 'B'}"},
        "another's id": {"Authorization": f"Bearer {served.tokens['operator'][:15]}{good[15:]}"},
        "an unknown id": {"Authorization": f"Bearer fp-{'0' * 12}{good[15:]}"},
        "upper case": {"Authorization": f"Bearer {good.upper()}"},
        "wildcards": {"Authorization": f"Bearer fp-%%%%%%%%%%%%{good[15:]}"},
        "quotes": {"Authorization": f"Bearer fp-' OR 1=1 --{good[15:]}"},
        "very long": {"Authorization": f"Bearer {'x' * 5000}"},
    }[kind]


KINDS = (
    "none", "empty", "no scheme", "another scheme", "no token", "a letter less", "another letter", "another's id",
    "an unknown id", "upper case", "wildcards", "quotes", "very long",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_known_token_every_endpoint_says_the_same(served, kind):
    with served.client() as client:
        for method, path in (
            ("GET", "/v1/models"),
            ("POST", "/v1/completions"),
            ("POST", "/v1/chat/completions"),
            ("POST", "/v1/suggest"),
            ("GET", "/metrics"),
        ):
            response = client.request(method, path, headers=header(served, kind), content=json.dumps(GOOD))
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"
            assert response.json()["error"]["code"] == "invalid_api_key"


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=80))
def test_no_invented_token_opens_anything(served, token):
    assert served.service.tokens.find(token) is None
    assert served.service.tokens.find(f"fp-{token}") is None


BODIES = {
    "/v1/completions": GOOD,
    "/v1/chat/completions": CHAT,
    "/v1/suggest": {"model": "base", "text": "I am ", "count": 1},
}
FIELDS = sorted(
    {*CompletionRequest.model_fields, *ChatRequest.model_fields, *SuggestRequest.model_fields, "tools", "\ud7ff"}
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=90, deadline=None)
@given(value=JSON, field=st.sampled_from(FIELDS), path=st.sampled_from(sorted(BODIES)))
def test_whatever_a_field_holds_the_service_answers_or_refuses_and_never_fails(served, value, field, path):
    with served.client("both") as client:
        response = client.post(path, content=json.dumps(BODIES[path] | {field: value}).encode())
    assert response.status_code in (200, 400, 404), response.text


def test_other_paths_and_methods_are_refused_in_the_same_shape(served):
    with served.client("both") as client:
        for response, status in (
            (client.get("/v1/nothing"), 404),
            (client.get("/v1/completions"), 405),
            (client.get("/docs"), 404),
            (client.get("/../../etc/passwd"), 404),
        ):
            assert response.status_code == status
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_health_needs_no_token_and_metrics_an_operators(served):
    with served.client() as client:
        assert client.get("/healthz").json() == {"status": "ok"}
    with served.client("both") as client:
        assert client.get("/metrics").status_code == 403
    served.post("both", "/v1/completions", **GOOD)
    with served.client("operator") as client:
        text = client.get("/metrics").text
    counted = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(counted['fedpeft_requests_total{path="/v1/completions",status="200"}']) >= 1
    assert float(counted["fedpeft_tokens_total"]) >= 1
    assert "person" not in text


def test_nothing_that_people_write_or_are_told_is_logged(served, people, caplog):
    with caplog.at_level(logging.DEBUG):
        for body in (GOOD | {"prompt": "hippopotamus"}, GOOD | {"prompt": "hippopotamus", "stop": 3}):
            served.post("both", "/v1/completions", **body)
        served.post(
            "both", "/v1/chat/completions", model="base", messages=[{"role": "tool", "content": "hippopotamus"}]
        )
        served.post("both", "/v1/suggest", model="base", text="hippopotamus")
        served.post("both", "/v1/completions", **GOOD, stream=True)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith(("fedpeft", "uvicorn"))]
    assert any("/v1/completions 200 both" in line for line in lines)
    assert not [line for line in lines if "hippo" in line]
    assert not [line for line in lines for token in people.tokens.values() if token[16:] in line]
