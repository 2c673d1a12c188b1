"""Instructions and conversations in JSONL: what each form becomes, and how a bad line is refused."""

import json
from pathlib import Path

import pytest

from fedpeft.data import Client, load_federation
from fedpeft.data.instructions import InstructionFederation
from fedpeft.data.jsonl import JsonlFederation
from fedpeft.errors import DataError


def write(folder: Path, *lines: object, name: str = "ada") -> Path:
    folder.mkdir(exist_ok=True)
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return folder


def said(folder: Path) -> list[list[tuple[str, bool, bool]]]:
    (ada,) = load_federation(str(folder)).client_ids()
    return [[(m.text, m.mine, m.system) for m in c] for c in load_federation(str(folder)).conversations(ada)]


def test_each_form_of_a_line_becomes_a_conversation(tmp_path):
    folder = write(
        tmp_path / "f",
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " hi "},
                      {"role": "assistant", "content": "hello"}]},
        {"instruction": "Translate.", "input": "Obst", "output": "fruit"},
        "",
        {"prompt": "Name a fruit.", "response": "Plum."},
        {"instruction": "Sing.", "input": "", "response": "La."},
    )  # fmt: skip
    assert said(folder) == [
        [("Be brief.", False, True), ("hi", False, False), ("hello", True, False)],
        [("Translate.\n\nObst", False, False), ("fruit", True, False)],
        [("Name a fruit.", False, False), ("Plum.", True, False)],
        [("Sing.", False, False), ("La.", True, False)],
    ]


def test_earlier_lines_train_later_ones_test_unless_a_time_says_otherwise(tmp_path):
    lines = [{"prompt": f"q{i}", "response": f"a{i}"} for i in range(20)]
    split = Client.of(InstructionFederation(write(tmp_path / "f", *lines)), "ada").split
    assert [len(part) for part in (split.train, split.validation, split.test)] == [14, 3, 3]
    assert [e.mine() for e in split.test] == [["a17"], ["a18"], ["a19"]]
    backwards = [{**line, "time": 100 - i} for i, line in enumerate(lines)]
    split = Client.of(InstructionFederation(write(tmp_path / "g", *backwards)), "ada").split
    assert [e.mine() for e in split.test] == [["a2"], ["a1"], ["a0"]]


def test_messages_with_a_text_stay_what_they_were(tmp_path):
    folder = write(tmp_path / "f", {"text": "on my way"})
    assert isinstance(load_federation(str(folder)), JsonlFederation)


USER, ADA = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "found '{', expected one JSON object per line"),
        ({"messages": []}, r"messages: found \[\], expected a list of messages with role and content"),
        ({"messages": ["hi"]}, r"messages\[0\]: found 'hi', expected an object with role and content"),
        ({"messages": [{**USER, "role": "asistant"}]}, r"messages\[0\].role: found 'asistant', .* did you mean 'assis"),
        ({"messages": [USER, {"role": "assistant"}]}, r"messages\[1\]: content: found None, expected a text"),
        ({"messages": [USER, {**ADA, "content": "  "}]}, r"messages\[1\]: content: found '  ', expected a text"),
        ({"messages": [{**USER, "name": "x"}]}, r"messages\[0\]: key: found 'name', expected role or content"),
        ({"messages": [USER, ADA, {**USER, "role": "system"}]}, r"messages\[2\].role: found 'system', expected user or"),
        ({"messages": [USER]}, "messages: found \"none of the assistant's\", expected at least one"),
        ({"messages": [USER, ADA], "time": "soon"}, "time: found 'soon', expected ISO 8601 or seconds"),
        ({"messages": [USER, ADA], "text": "x"}, "key: found 'text', expected messages or time"),
        ({"prompt": "q"}, "found 'prompt', expected messages, or an instruction with its output"),
        ({"output": "a"}, "found 'output', expected messages, or an instruction with its output"),
        ({"prompt": "q", "output": 3}, "output: found 3, expected a text that is not empty"),
        ({"instruction": "q", "inputs": "x", "output": "a"}, "key: found 'inputs', .*; did you mean 'input'"),
        ({"text": "on my way"}, "found 'text', expected messages, or an instruction with its output"),
    ],
)  # fmt: skip
def test_a_bad_line_is_refused_by_file_and_line(tmp_path, line, complaint):
    folder = write(tmp_path / "f", {"prompt": "q", "response": "a"}, line)
    with pytest.raises(DataError, match=rf"ada\.jsonl:2.*{complaint}"):
        load_federation(str(folder)).conversations("ada")


def test_a_folder_without_files_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"expected at least one \*\.jsonl file"):
        load_federation(str(tmp_path))
