"""What the service says is what the runtime says; in OpenAI's shapes, whole and in parts."""

import json
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpeft.serve.answers import event

PROMPTS = ("I am", "so what do you ", "")


def texts(stream: str) -> list[dict]:
    lines = [line.removeprefix("data: ") for line in stream.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("model", ["person00", "base"])
def test_a_completion_is_the_runtimes(served, people, model, prompt):
    answer = served.post("both", "/v1/completions", model=model, prompt=prompt, temperature=0, max_tokens=20).json()
    assert answer["choices"][0]["text"] == people.complete(model, prompt, tokens=20)
    assert answer["object"] == "text_completion"
    assert answer["model"] == model
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_an_adapters_answer_is_not_the_bases(served):
    said = [
        served.post("both", "/v1/completions", model=model, prompt="I am", temperature=0, max_tokens=20).json()
        for model in ("person00", "base")
    ]
    assert said[0]["choices"][0]["text"] != said[1]["choices"][0]["text"]


def test_sixty_four_people_at_once_are_each_answered_by_their_own_adapter(served, people):
    names = [name for name in people.tokens if name.startswith("person")]
    expected = {name: people.complete(name, "I am", tokens=24) for name in names}
    assert len(names) == 64
    # Few adapters of random numbers may end at once; enough of them say what nobody else says.
    assert len(set(expected.values())) >= 60

    def ask(name: str) -> str:
        with served.client(name) as client:
            body = {"model": name, "prompt": "I am", "temperature": 0, "max_tokens": 24}
            return client.post("/v1/completions", json=body).json()["choices"][0]["text"]

    with ThreadPoolExecutor(64) as pool:
        told = dict(zip(names, pool.map(ask, names), strict=True))
    assert told == expected


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0},
        {"temperature": 1.3, "seed": 7},
        {"temperature": 0.9, "seed": 7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.4},
    ],
)
def test_streamed_parts_join_to_the_whole_answer_and_to_the_runtimes(served, people, settings):
    body = {"model": "base", "prompt": "I am", "max_tokens": 40, **settings}
    whole = served.post("both", "/v1/completions", **body).json()["choices"][0]
    parts = texts(served.post("both", "/v1/completions", **body, stream=True).text)
    assert "".join(part["choices"][0]["text"] for part in parts) == whole["text"]
    assert [part["choices"][0]["finish_reason"] for part in parts][-1] == whole["finish_reason"]
    assert whole["text"] == people.complete("base", "I am", tokens=40, **settings)
    assert len({part["id"] for part in parts}) == 1


def test_a_chat_is_the_runtimes_and_streams_the_same(served, people):
    messages = [
        {"role": "user", "content": "how are you?"},
        {"role": "assistant", "content": "fine"},
        {"role": "user", "content": "what are you doing?"},
    ]
    expected = people.runtime.chat(messages, tokens=30)
    body = {"model": "base", "messages": messages, "temperature": 0, "max_completion_tokens": 30}
    whole = served.post("both", "/v1/chat/completions", **body).json()
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": expected, "refusal": None}
    stream = texts(
        served.post("both", "/v1/chat/completions", **body, stream=True, stream_options={"include_usage": True}).text
    )
    assert stream[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(part["choices"][0]["delta"].get("content", "") for part in stream[:-1]) == expected
    assert stream[-1]["choices"] == []
    assert stream[-1]["usage"] == whole["usage"]


def test_a_stop_text_ends_the_answer_and_is_no_part_of_it(served, people):
    whole = people.complete("base", "I am", tokens=30)
    stop = whole[len(whole) // 2 :][:3]
    answer = served.post(
        "both", "/v1/completions", model="base", prompt="I am", temperature=0, max_tokens=30, stop=[stop, "never said"]
    ).json()["choices"][0]
    assert answer["text"] == whole[: whole.index(stop)]
    assert answer["finish_reason"] == "stop"


def test_an_answer_ends_at_its_tokens_at_the_services_most_and_at_the_context(served, people):
    body = {"model": "person00", "temperature": 2, "seed": 3, "top_k": 2000}
    few = served.post("both", "/v1/completions", **body, prompt="I am", max_tokens=3).json()
    assert few["usage"]["completion_tokens"] == 3
    assert few["choices"][0]["finish_reason"] == "length"
    runtime, prompt = people.runtime, "I am"
    while len(ids := runtime.text.begin(prompt, room=10**9)) < runtime.context - 3:
        prompt += " so"
    adapter = runtime.load(people.run / "device" / "adapters" / "person00")
    made = list(runtime.generate(ids, adapter, tokens=200))
    answer = served.post("both", "/v1/completions", model="person00", prompt=prompt, temperature=0, max_tokens=200)
    assert answer.json()["usage"] == {
        "prompt_tokens": len(ids),
        "completion_tokens": len(made),
        "total_tokens": len(ids) + len(made),
    }
    assert answer.json()["choices"][0]["finish_reason"] == "length"
    assert len(made) == 4


def test_suggestions_are_the_runtimes(served, people):
    adapter = people.runtime.load(people.run / "device" / "adapters" / "person00")
    for model, chosen in (("base", None), ("person00", adapter)):
        answer = served.post("both", "/v1/suggest", model=model, text="I am go", count=5).json()
        expected = people.runtime.suggest("I am go", chosen, count=5)
        assert [word["word"] for word in answer["data"]] == [s.word for s in expected]
        assert [word["probability"] for word in answer["data"]] == pytest.approx(
            [s.probability for s in expected], rel=1e-4
        )


@given(st.text())
def test_an_event_is_one_line_whatever_is_said(text):
    line, *rest = event({"text": text}).decode().splitlines()
    assert rest == [""]
    assert json.loads(line.removeprefix("data: ")) == {"text": text}


def test_openais_own_client_completes_chats_streams_lists_and_reads_errors(served, people):
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.tokens["both"], max_retries=0)
    assert [model.id for model in client.models.list()] == ["base", "person00"]
    assert client.models.retrieve("base").owned_by == "both"
    done = client.completions.create(model="base", prompt="I am", temperature=0, max_tokens=12)
    assert done.choices[0].text == people.complete("base", "I am", tokens=12)
    messages = [{"role": "user", "content": "how are you?"}]
    said = client.chat.completions.create(model="base", messages=messages, temperature=0, max_tokens=12)
    stream = client.chat.completions.create(model="base", messages=messages, temperature=0, max_tokens=12, stream=True)
    assert "".join(part.choices[0].delta.content or "" for part in stream) == said.choices[0].message.content
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="person01", prompt="I am")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{served.url}/v1", api_key="sk-wrong", max_retries=0).models.list()


def test_without_a_seed_two_answers_differ(served):
    body = {"model": "base", "prompt": "I am", "temperature": 1.5, "max_tokens": 30}
    said = {served.post("both", "/v1/completions", **body).json()["choices"][0]["text"] for _ in range(4)}
    assert len(said) > 1
