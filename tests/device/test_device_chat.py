"""A conversation becomes the tokens its base was trained on; templates as transformers applies them."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from fedpeft.base import load_base
from fedpeft.device import Runtime
from fedpeft.device.bundle import TEMPLATE
from fedpeft.device.chat import MarkedChat, TemplateChat
from fedpeft.errors import FedpeftError
from fedpeft.export import export_base
from tests.device.conftest import KEY

CHATML = (
    "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] | trim }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
LLAMA = """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] %}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- for m in messages %}
    {%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must take turns') }}
    {%- endif %}
    {%- if loop.first and system is defined %}
        {{- '<me>' + system + '\n' }}
    {%- endif %}
    {{- '<you>' + m['content'] + eos_token if m['role'] == 'user' else '<me>' + m['content'] + eos_token }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<me>' }}{%- endif %}"""

HELLO = [{"role": "user", "content": "Hi, how are you?"}]
TALK = [*HELLO, {"role": "assistant", "content": " Fine. "}, {"role": "user", "content": "Good to hear"}]
RULED = [{"role": "system", "content": "Be brief."}, *TALK]


def theirs(run: Path, template: str, messages: list) -> list[int]:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(run / "device" / "base" / "tokenizer.json"), bos_token="<s>", eos_token="</s>"
    )
    text = tokenizer.apply_chat_template(messages, chat_template=template, add_generation_prompt=True, tokenize=False)
    return tokenizer(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize("template", [CHATML, LLAMA])
@pytest.mark.parametrize("messages", [HELLO, TALK, RULED])
def test_a_template_gives_the_tokens_that_transformers_gives(run, runtime, template, messages):
    assert TemplateChat(runtime.text, template).begin(messages, 500) == theirs(run, template, messages)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["</s>", "<s>", "<me>", "a ", "\ue000", "\ue001", "0", "<"]), max_size=6).map("".join))
def test_a_mark_that_somebody_typed_is_only_characters(runtime, typed):
    marks = {*runtime.text.facts.start, *runtime.text.facts.me, *runtime.text.facts.you, *runtime.text.facts.end}
    for chat in (TemplateChat(runtime.text, LLAMA), MarkedChat(runtime.text)):
        plain, ids = (chat.begin([{"role": "user", "content": c}], 500) for c in ("x", f"x{typed}x"))
        assert [i for i in ids if i in marks] == [i for i in plain if i in marks]
        # This tokenizer begins every part with a space.
        assert typed.replace(" ", "") in runtime.text.decode(ids).replace(" ", "")


def test_marks_begin_each_message_and_the_answer(runtime):
    facts, text = runtime.text.facts, runtime.text
    ids = MarkedChat(text).begin(TALK, 500)
    expected = [*facts.start]
    for message, mark in zip(TALK, (facts.you, facts.me, facts.you), strict=True):
        expected += [*mark, *text.encode(message["content"]), *facts.end]
    assert ids == [*expected, *facts.me]


def test_what_is_too_long_loses_its_oldest_part(run, runtime):
    text = runtime.text
    ids = MarkedChat(text).begin(TALK, 12)
    assert len(ids) == 12 and ids[0] == text.facts.start[0] and ids[-1] == text.facts.me[0]
    long = [*HELLO * 1, TALK[1], {"role": "user", "content": "And now?"}]
    chat = TemplateChat(text, LLAMA)
    whole = chat.begin([RULED[0], *long], 500)
    cut = chat.begin([RULED[0], *long], len(whole) - 1)
    assert cut == theirs(run, LLAMA, [RULED[0], long[-1]])
    with pytest.raises(FedpeftError, match="messages: found 'more than 3 tokens'"):
        chat.begin(long, 3)


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([], "at least one"),
        ([{"role": "robot", "content": "x"}], r"messages\[0\].role: found 'robot'"),
        ([{"role": "user"}], r"messages\[0\].content"),
        ([{"role": "user", "content": 3}], r"messages\[0\].content: found 3"),
        ([{"role": "system", "content": "x"}], "system"),
        ([{"role": "assistant", "content": "x"}], "take turns"),
    ],
)
def test_messages_that_are_none_are_refused_by_number(runtime, messages, complaint):
    with pytest.raises(FedpeftError, match=complaint):
        TemplateChat(runtime.text, LLAMA).begin(messages, 500)


@pytest.mark.parametrize(
    "template", ["{% for %}", "{{ ''.__class__.__mro__ }}", "{{ messages[9]['role'] }}", "{{ 1 / 0 }}"]
)
def test_a_template_that_is_none_or_reaches_out_is_refused(runtime, template):
    with pytest.raises(FedpeftError, match=r"chat_template|messages"):
        TemplateChat(runtime.text, template).begin(HELLO, 500)


def test_a_runtime_talks_with_the_template_that_was_exported_and_with_marks_without(
    run, runtime, loud, tmp_path, monkeypatch
):
    monkeypatch.setenv("FEDPEFT_HOME", str(tmp_path / "home"))
    base = load_base("keyboard")
    monkeypatch.setattr(base.tokenizer, "chat_template", CHATML)
    assert TEMPLATE in export_base(base, tmp_path / "base", key=KEY).files
    assert TEMPLATE not in runtime.manifest.files
    templated = Runtime(tmp_path / "base")
    for one, prompt in ((templated, theirs(run, CHATML, TALK)), (runtime, MarkedChat(runtime.text).begin(TALK, 400))):
        for adapter in (None, loud):
            made = list(one.generate(prompt, adapter, tokens=9))
            assert one.chat(TALK, adapter, tokens=9) == one.text.decode(made).lstrip(" ")
            assert "".join(one.converse(adapter).reply(TALK, tokens=9)) == one.chat(TALK, adapter, tokens=9)
        assert one.chat(TALK, loud, tokens=9) != one.chat(TALK, tokens=9)
