"""A folder of labelled JSONL files, one per person: what is read, and which line is refused."""

import pytest

from fedpeft.data import Example, load_federation, load_labelled
from fedpeft.data.labelled import split_of
from fedpeft.errors import DataError


@pytest.fixture
def write(tmp_path):
    """Return a function that writes people's lines and opens the folder."""

    def folder(**people: str):
        for name, lines in people.items():
            (tmp_path / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        return load_labelled(tmp_path.name, root=tmp_path.parent)

    return folder


def test_the_labels_are_those_of_all_files_in_order(write, tmp_path):
    federation = write(
        bob='{"text": " where is it? ", "label": "track"}\n\n{"text": "money back", "label": "refund"}\n',
        ada='{"text": "hello", "label": " greet "}',
    )
    assert federation.name == tmp_path.name
    assert list(federation.client_ids()) == ["ada", "bob"]
    assert federation.labels() == ["greet", "refund", "track"]
    assert federation.examples("bob") == [Example("where is it?", 2), Example("money back", 1)]
    assert federation.examples("ada") == [Example("hello", 0)]
    assert federation.groups() == {tmp_path.name: (0, 3)}
    assert federation.group_of("ada") == tmp_path.name


def test_with_times_earlier_lines_train(write):
    days = range(20, 10, -1)
    lines = "\n".join(
        f'{{"text": "{day}", "label": "{"ab"[day % 2]}", "time": "2026-05-{day}T12:00:00Z"}}' for day in days
    )
    split = split_of(write(ada=lines), "ada")
    assert [[int(e.text) for e in part] for part in (split.train, split.validation, split.test)] == [
        [11, 12, 13, 14, 15, 16],
        [17, 18],
        [19, 20],
    ]


def test_an_empty_text_is_nothing_to_learn_from(write):
    federation = write(ada='{"text": " ", "label": "a"}\n{"text": "x", "label": "a"}\n{"text": "y", "label": "b"}')
    assert [e.text for e in federation.examples("ada")] == ["x", "y"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("hello", "one JSON object per line"),
        ('["a"]', "a JSON object with a 'text'"),
        (
            '{"text": "a"}',
            "label: found None, expected a label on every line; lines without any fit next-word prediction",
        ),
        ('{"label": "a"}', "text: found None, expected a string"),
        ('{"text": "a", "label": 3}', "label: found 3, expected the name of a class"),
        ('{"text": "a", "label": null}', "label: found None, expected the name of a class"),
        ('{"text": "a", "label": "  "}', "label: found '  ', expected the name of a class"),
        ('{"text": "a", "label": "b", "mine": true}', "key: found 'mine', expected text, label or time; did you mean"),
        ('{"text": "a", "label": "b", "tiem": 3}', "did you mean 'time'?"),
        ('{"text": "a", "label": "b", "time": 3}', "time: found 3, expected a time on every line of a file or on none"),
    ],
)
def test_a_malformed_line_is_refused_by_file_and_line(write, tmp_path, line, complaint):
    good = '{"text": "good", "label": "a"}'
    with pytest.raises(DataError) as refused:
        write(ada=f"{good}\n\n{line}\n{good}").labels()
    assert f"{tmp_path / 'ada.jsonl'}:3" in str(refused.value)
    assert complaint in str(refused.value)


def test_a_bad_time_is_refused_as_among_messages(write):
    with pytest.raises(DataError, match=r"ada\.jsonl:1: time: found 'yesterday', expected ISO 8601 or seconds"):
        write(ada='{"text": "a", "label": "b", "time": "yesterday"}').labels()


def test_lines_with_and_without_a_label_fit_neither_task(write, tmp_path):
    federation = write(ada='{"text": "a", "label": "b"}\n{"text": "c"}')
    with pytest.raises(DataError, match="a label on every line"):
        federation.examples("ada")
    with pytest.raises(DataError) as refused:
        load_federation(str(tmp_path)).conversations("ada")
    assert str(refused.value) == (
        f"{tmp_path / 'ada.jsonl'}:1: label: found 'b', expected messages without labels; "
        "a folder of labelled lines needs a classification task"
    )


def test_one_label_is_nothing_to_tell_apart(write):
    with pytest.raises(DataError, match=r"label: found \['a'\], expected at least two labels to tell apart"):
        write(ada='{"text": "x", "label": "a"}').labels()


def test_an_empty_folder_says_what_a_file_looks_like(tmp_path):
    with pytest.raises(DataError, match=r"at least one \*\.jsonl file, one per person; .*\"label\": \"refund\""):
        load_labelled(str(tmp_path))
