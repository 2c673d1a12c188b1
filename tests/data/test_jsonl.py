"""One JSONL file per person: what is read, and which line is refused."""

import json
from pathlib import Path

import pytest

from fedpeft.base import load_base
from fedpeft.data import Client, Message, load_federation
from fedpeft.data.jsonl import JsonlFederation
from fedpeft.data.windows import windows
from fedpeft.errors import DataError


@pytest.fixture
def read(tmp_path: Path):
    """Return a function that writes a file of lines and reads the conversations back."""

    def conversations(*lines: str):
        (tmp_path / "ada.jsonl").write_text("\n".join(lines), encoding="utf-8")
        return JsonlFederation(tmp_path).conversations("ada")

    return conversations


def test_a_good_folder_is_one_client_per_file_in_order_of_name(tmp_path):
    for name in ("cyd", "ada", "bob"):
        (tmp_path / f"{name}.jsonl").write_text('{"text": "hello"}\n')
    (tmp_path / "notes.txt").write_text("not a client")
    federation = load_federation(tmp_path.name, root=tmp_path.parent)
    assert federation.name == tmp_path.name
    assert list(federation.client_ids()) == ["ada", "bob", "cyd"]
    assert federation.conversations("bob") == [(Message("hello", True, 1.0),)]


def test_lines_are_grouped_by_conversation_and_ordered_by_time(read):
    assert read(
        '{"text": " on my way ", "time": 20, "conversation": "sam"}',
        "",
        '{"text": "where are you?", "time": 10.5, "conversation": "sam", "mine": false}',
        '{"text": "hi", "time": 15, "conversation": "kim"}',
    ) == [
        (Message("where are you?", False, 10.5), Message("on my way", True, 20.0)),
        (Message("hi", True, 15.0),),
    ]


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ('"2026-05-02T19:38:15Z"', 1777750695.0),
        ('"2026-05-02T21:38:15+02:00"', 1777750695.0),
        ('"2026-05-02T19:38:15.250+00:00"', 1777750695.25),
        ("1777750695", 1777750695.0),
        ("1777750695.25", 1777750695.25),
        ("-3", -3.0),
    ],
)
def test_times_are_iso_8601_or_seconds(read, time, seconds):
    assert read(f'{{"text": "a", "time": {time}}}') == [(Message("a", True, seconds),)]


def test_without_times_the_order_of_lines_counts(read):
    words = ["one", "two", "three"]
    (conversation,) = read(*(json.dumps({"text": word}) for word in words))
    assert [m.text for m in conversation] == words


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("hello", "one JSON object per line"),
        ('{"text": "a"', "one JSON object per line"),
        ('["a"]', "a JSON object with a 'text'"),
        ('"a"', "a JSON object with a 'text'"),
        ("{}", "text: found None, expected a string"),
        ('{"text": 3}', "text: found 3, expected a string"),
        ('{"text": null}', "text: found None, expected a string"),
        ('{"text": "a", "mine": "yes"}', "mine: found 'yes', expected true or false"),
        ('{"text": "a", "mine": 1}', "mine: found 1, expected true or false"),
        ('{"text": "a", "time": "yesterday"}', "time: found 'yesterday', expected ISO 8601 or seconds"),
        ('{"text": "a", "time": true}', "time: found True, expected ISO 8601 or seconds"),
        ('{"text": "a", "time": [1]}', "time: found [1], expected ISO 8601 or seconds"),
        ('{"text": "a", "time": null}', "time: found None, expected ISO 8601 or seconds"),
        (
            '{"text": "a", "tiem": 3}',
            "key: found 'tiem', expected text, time, conversation or mine; did you mean 'time'?",
        ),
        ('{"txt": "a"}', "did you mean 'text'?"),
        ('{"text": "a", "user": "b"}', "known: conversation, mine, text, time"),
        ('{"text": "a", "time": NaN}', "ISO 8601 or seconds"),
        ('{"text": "a", "time": Infinity}', "ISO 8601 or seconds"),
        ('{"text": "a", "time": 1%s}' % ("0" * 400), "ISO 8601 or seconds"),
    ],
)
def test_a_malformed_line_is_refused_by_file_and_line(read, tmp_path, line, complaint):
    with pytest.raises(DataError) as refused:
        read('{"text": "good"}', "", line, '{"text": "good"}')
    assert f"{tmp_path / 'ada.jsonl'}:3" in str(refused.value)
    assert complaint in str(refused.value)


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_a_line_ends_at_a_newline_and_at_nothing_else(read, separator):
    """JSON allows these inside a string as they are, and phones do write them."""
    text = f"a{separator}b"
    assert read(json.dumps({"text": text}, ensure_ascii=False), '{"text": "c"}') == [
        (Message(text, True, 1.0), Message("c", True, 2.0))
    ]


def test_a_line_may_end_in_a_carriage_return(read):
    assert [m.text for m in read('{"text": "a"}\r', '{"text": "b"}\r')[0]] == ["a", "b"]


def test_a_file_that_is_not_utf8_is_refused_by_name(tmp_path):
    (tmp_path / "ada.jsonl").write_bytes(b'{"text": "caf\xe9"}')
    with pytest.raises(DataError, match=r"ada\.jsonl.*a readable UTF-8 file"):
        JsonlFederation(tmp_path).conversations("ada")


def test_an_empty_folder_says_what_a_file_looks_like(tmp_path):
    with pytest.raises(DataError, match=r"at least one \*\.jsonl file, one per person; .*\"text\": \"hello\""):
        load_federation(str(tmp_path))


def test_an_empty_message_is_nothing_to_learn_from(read, tmp_path):
    read('{"text": "  "}', '{"text": ""}')
    split = Client.of(JsonlFederation(tmp_path), "ada").split
    tokenizer = load_base("keyboard").tokenizer
    assert [len(windows(part, tokenizer, 16)) for part in (split.train, split.validation, split.test)] == [0, 0, 0]
