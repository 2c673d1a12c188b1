"""A function of the user's own as a federation, and how each of its mistakes is named."""

from itertools import count
from pathlib import Path

import pytest

from fedpeft.data import Client, Message, load_federation
from fedpeft.errors import DataError, FedpeftError

_numbers = count()


@pytest.fixture
def federation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that writes a module into the working directory and loads its ``clients``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def load(body: str, attribute: str = "clients"):
        module = f"clients_of_test_{next(_numbers)}"
        (tmp_path / f"{module}.py").write_text(f"from fedpeft.data import Message\n{body}\n")
        return load_federation(f"{module}:{attribute}")

    return load


def test_strings_are_messages_of_the_person_in_order_of_time(federation):
    found = federation("def clients(): return {'ada': [' one ', 'two'], 'bob': ['three']}")
    assert list(found.client_ids()) == ["ada", "bob"]
    assert list(found.conversations("ada")) == [(Message("one", True, 0.0),), (Message("two", True, 1.0),)]


def test_tuples_of_messages_are_conversations(federation):
    found = federation("def clients(): return {'ada': [(Message('hi', False, 1.0), Message('yo', True, 2.0))]}")
    assert list(found.conversations("ada")) == [(Message("hi", False, 1.0), Message("yo", True, 2.0))]


def test_a_finished_federation_is_taken_as_it_is(federation):
    found = federation(
        "class Mine:\n"
        "    name = 'mine'\n"
        "    def client_ids(self): return ['ada']\n"
        "    def conversations(self, client): yield (Message(client, True, 0.0),)\n"
        "clients = Mine"
    )
    assert list(found.client_ids()) == ["ada"]
    assert list(found.conversations("ada")) == [(Message("ada", True, 0.0),)]


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("clients = 3", "an importable function without arguments; .*'int' object is not callable"),
        ("def clients(path): return {}", "an importable function without arguments; .*missing 1 required"),
        ("def other(): return {}", "an importable function without arguments; .*no attribute 'clients'"),
        ("import nowhere_to_be_found", "an importable function without arguments; .*No module named"),
        ("def clients(): raise ValueError('no data today')", "no data today"),
        ("def clients(): return {}", "at least one client"),
        ("def clients(): return ['a']", "found 'list', expected a mapping from client name to messages"),
        ("def clients(): raise KeyError('ada')", "ada"),
        ("def clients(): return open('/nowhere/at/all')", "/nowhere/at/all"),
        ("def clients(): return {'ada': 3}", "ada"),
        ("def clients(): return {'ada': 'one string, not a list of them'}", "ada"),
    ],
)
def test_a_function_that_gives_no_clients_is_refused_with_the_reason(federation, body, complaint):
    with pytest.raises(DataError, match=complaint):
        federation(body)


@pytest.mark.parametrize("entry", ["3", "('a', 'b')", "[Message('a', True, 0.0)]"])
def test_an_entry_that_is_no_message_is_refused_by_client_and_position(federation, entry):
    found = federation(f"def clients(): return {{'ada': ['fine', {entry}]}}")
    with pytest.raises(DataError, match=r"\['ada'\]\[1\].*expected a string or a tuple of fedpeft\.data\.Message"):
        list(found.conversations("ada"))


def test_a_conversation_out_of_order_does_not_put_test_words_into_training(federation):
    """Either it is put in order, or it is refused; what it must not do is leak."""
    try:
        found = federation(
            "def clients():\n    turns = [Message(str(i), True, float(i)) for i in range(20)]\n"
            "    return {'ada': [tuple(turns[::2] + turns[1::2])]}"
        )
        split = Client.of(found, "ada").split
    except FedpeftError:
        return
    texts = {
        part: [text for e in getattr(split, part) for text in e.mine()] for part in ("train", "validation", "test")
    }
    assert sorted(map(int, texts["train"])) == list(range(14))
    assert sorted(map(int, texts["test"])) == [17, 18, 19]
