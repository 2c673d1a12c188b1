"""Tokens: shown once, kept as hashes in a private file, revoked at once."""

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpeft.errors import ServeError
from fedpeft.serve.tokens import TokenStore


@pytest.fixture
def path(tmp_path):
    return tmp_path / "trust" / "serve.sqlite"


def test_a_token_stands_for_its_user_and_adapters_in_every_store_on_the_file(path):
    caller, token = TokenStore(path).add("ada", frozenset({"ada", "global"}))
    found = TokenStore(path).find(token)
    assert found == caller
    assert (found.user, found.adapters, found.operator) == ("ada", {"ada", "global"}, False)


def test_neither_token_nor_secret_is_in_the_file_and_only_its_owner_can_read_it(path):
    _, token = TokenStore(path).add("ada", frozenset({"ada"}))
    content = path.read_bytes()
    assert token.encode() not in content
    assert token[16:].encode() not in content
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_no_two_tokens_are_alike(path):
    store = TokenStore(path)
    tokens = {store.add("ada", frozenset())[1] for _ in range(50)}
    assert len({token[16:] for token in tokens}) == 50
    assert all(store.find(token) for token in tokens)


def test_a_revoked_token_opens_nothing_and_the_others_still_do(path):
    store = TokenStore(path)
    first, one = store.add("ada", frozenset({"ada"}))
    _, two = store.add("ada", frozenset({"ada"}))
    TokenStore(path).revoke(first.token_id)
    assert store.find(one) is None
    assert store.find(two) is not None
    assert [caller.token_id for caller, _ in store.entries()] == [two[3:15]]
    with pytest.raises(ServeError, match=first.token_id):
        store.revoke(first.token_id)


def test_without_a_file_nobody_is_known_and_none_is_made(path):
    store = TokenStore(path)
    assert store.find(f"fp-{'0' * 12}-{'x' * 43}") is None
    assert store.entries() == []
    with pytest.raises(ServeError, match="no tokens"):
        store.revoke("0" * 12)
    assert not path.exists()


def test_a_file_that_others_can_read_is_refused(path):
    store = TokenStore(path)
    _, token = store.add("ada", frozenset())
    path.chmod(0o640)
    with pytest.raises(ServeError, match="chmod 600"):
        store.find(token)
    with pytest.raises(ServeError, match="chmod 600"):
        TokenStore(path)


def test_a_file_that_is_no_store_is_refused_in_one_line(path):
    path.parent.mkdir()
    path.write_bytes(b"not a database, but long enough to be read as one " * 40)
    path.chmod(0o600)
    with pytest.raises(ServeError, match="SQLite"):
        TokenStore(path).entries()


@given(st.text(max_size=90))
def test_no_text_is_a_token_by_chance(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "chance" / "serve.sqlite"
    store = TokenStore(path)
    if not path.exists():
        store.add("ada", frozenset({"ada"}))
    assert store.find(text) is None
