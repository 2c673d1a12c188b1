"""The local store: what it keeps, what it gives away to nobody, and what it says when something is wrong."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedpeft.data import Client, Message
from fedpeft.data.stored import StoredFederation
from fedpeft.device.edge.example import LONGEST, Written
from fedpeft.device.edge.keychain import FileKeychain, SystemKeychain, find_keychain
from fedpeft.device.edge.retention import DAY, Retention
from fedpeft.device.edge.store import ExampleStore
from fedpeft.errors import ConsentError, StoreError

NOW = 1_800_000_000.0
SECRET = "the combination is 4-8-15-16-23-42"


def open_store(folder: Path, **limits) -> ExampleStore:
    return ExampleStore(folder, Retention(**limits), clock=lambda: NOW)


@pytest.fixture
def store(tmp_path: Path) -> ExampleStore:
    made = open_store(tmp_path / "home" / "store")
    made.agree()
    return made


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def texts(store: ExampleStore) -> list[str]:
    return [example.text for example in store.examples()]


def test_without_consent_nothing_is_stored_and_no_key_is_made(tmp_path):
    store = open_store(tmp_path)
    with pytest.raises(ConsentError, match="consent"):
        store.add("hello")
    assert store.contents().messages == 0
    assert list(tmp_path.glob("keys/*")) == []


def test_consent_outlives_the_process_and_its_withdrawal_stops_others_that_have_the_store_open(store):
    other = open_store(store.folder)
    assert other.consent
    other.withdraw()
    with pytest.raises(ConsentError):
        store.add("hello")
    store.agree()
    other.add("hello again")
    assert texts(store) == ["hello again"]


def test_messages_come_back_by_time_and_conversations_as_training_reads_them(store):
    store.extend(
        [
            Written("second", True, "sam", NOW - 10),
            Written("first", False, "sam", NOW - 20),
            Written("alone", True, "", NOW - 15),
        ]
    )
    assert texts(store) == ["first", "alone", "second"]
    federation = StoredFederation(store, "me")
    assert federation.conversations("me") == [
        (Message("first", False, NOW - 20), Message("second", True, NOW - 10)),
        (Message("alone", True, NOW - 15),),
    ]
    assert sum(len(e.mine()) for e in Client.of(federation, "me").split.train) >= 1


def test_messages_without_a_time_come_one_after_the_other_so_that_a_history_can_be_divided(store):
    store.extend([Written(f"message {n}") for n in range(20)])
    assert texts(store) == [f"message {n}" for n in range(20)]
    split = Client.of(StoredFederation(store, "me"), "me").split
    assert [len(part[0].mine()) for part in (split.train, split.validation, split.test)] == [14, 3, 3]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip), mine=st.booleans())
def test_any_text_comes_back_as_it_was_but_for_the_white_space_around_it(store, text, mine):
    id_ = store.add(text, mine=mine, conversation=text)
    (found,) = [e for e in store.examples() if e.id == id_]
    assert (found.text, found.mine, found.conversation) == (text.strip(), mine, text)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"text": ""}, "text"),
        ({"text": "  \n"}, "text"),
        ({"text": 7}, "text"),
        ({"text": "\ud800"}, "text"),
        ({"text": "x" * (LONGEST + 1)}, "text"),
        ({"text": "x", "conversation": 7}, "conversation"),
        ({"text": "x", "mine": 1}, "mine"),
        ({"text": "x", "time": float("nan")}, "time"),
        ({"text": "x", "time": "now"}, "time"),
        ({"text": "x", "time": NOW - 181 * DAY}, "time"),
    ],
)
def test_what_is_no_message_is_refused_by_name_and_nothing_of_the_batch_is_kept(store, fields, named):
    with pytest.raises(StoreError) as refused:
        store.extend([Written("good"), Written(**fields)])
    assert refused.value.field == named
    assert store.contents().messages == 0


def test_no_file_of_the_store_holds_the_text_and_only_the_owner_can_read_them(store):
    store.add(SECRET, conversation="with the bank")
    raw = everything(store.folder)
    assert SECRET.encode() not in raw
    assert b"bank" not in raw
    for path in [store.folder, *store.folder.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_the_oldest_leave_by_count_bytes_and_age(tmp_path):
    now = [NOW]
    store = ExampleStore(tmp_path, Retention(days=10, count=3), clock=lambda: now[0])
    store.agree()
    for age in (5, 4, 3, 2):
        store.add(f"{age} days old", time=NOW - age * DAY)
    assert texts(store) == ["4 days old", "3 days old", "2 days old"]
    now[0] = NOW + 7.5 * DAY
    assert texts(store) == ["2 days old"], "what is too old is not given out even before it is deleted"
    assert store.prune() == 2
    assert store.contents().messages == 1
    narrow = ExampleStore(tmp_path, Retention(bytes=300), clock=lambda: now[0])
    for n in range(5):
        narrow.add(f"message {n}")
    assert texts(narrow)[-1] == "message 4"
    assert narrow.contents().bytes <= 300
    with pytest.raises(StoreError, match="retention"):
        narrow.add("x" * 300)


@pytest.mark.parametrize("field", ["days", "count", "bytes"])
def test_a_retention_that_keeps_nothing_is_refused(field):
    with pytest.raises(StoreError, match=f"retention.{field}"):
        Retention(**{field: 0})


def test_a_deleted_message_is_in_no_file_any_more_and_the_others_stay(store):
    gone, kept = store.extend([Written(SECRET), Written("stays")])
    with sqlite3.connect(store.folder / "examples.sqlite") as connection:
        ((sealed,),) = connection.execute("SELECT sealed FROM examples WHERE id = ?", (gone,))
    connection.close()
    assert sealed in everything(store.folder)
    store.delete(gone)
    assert sealed not in everything(store.folder)
    assert [e.id for e in store.examples()] == [kept]
    with pytest.raises(StoreError, match="example"):
        store.delete(gone)


def test_forgetting_deletes_messages_and_key_and_a_process_that_had_it_goes_on_with_the_new_key(store):
    other = open_store(store.folder)
    other.add(SECRET)
    before = everything(store.folder)
    (key,) = (store.folder / "keys").iterdir()
    assert store.forget() == 1
    assert not key.exists()
    after = everything(store.folder)
    assert len(after) < len(before)
    other.add("a new life")
    assert texts(store) == ["a new life"]
    assert store.contents().consent


def test_forgetting_that_was_broken_off_before_the_key_was_destroyed_is_ended_by_the_next_opening(store, monkeypatch):
    store.add(SECRET)
    (key,) = (store.folder / "keys").iterdir()
    monkeypatch.setattr(store, "_destroy_retired", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        store.forget()
    assert key.exists()
    again = open_store(store.folder)
    assert not key.exists()
    assert texts(again) == []


@pytest.mark.parametrize("damage", ["missing", "another", "short", "readable"])
def test_a_key_that_cannot_be_used_is_named_nothing_is_lost_and_everything_can_be_forgotten(store, damage):
    store.add("precious")
    (key,) = (store.folder / "keys").iterdir()
    right = key.read_bytes()
    if damage == "missing":
        key.unlink()
    elif damage == "readable":
        key.chmod(0o644)
    else:
        key.write_bytes(os.urandom(32) if damage == "another" else right[:16])
    again = open_store(store.folder)
    for use in (again.examples, lambda: again.add("more")):
        with pytest.raises(StoreError, match="key"):
            use()
    assert again.contents().messages == 1
    key.write_bytes(right)
    key.chmod(0o600)
    assert texts(open_store(store.folder)) == ["precious"]
    key.unlink()
    assert open_store(store.folder).forget() == 1


def test_an_altered_record_is_named_and_the_others_are_read_once_it_is_deleted(store):
    ids = store.extend([Written(f"message {n}") for n in range(3)])
    with sqlite3.connect(store.folder / "examples.sqlite") as connection:
        ((sealed,),) = connection.execute("SELECT sealed FROM examples WHERE id = ?", (ids[1],))
        flipped = sealed[:-1] + bytes([sealed[-1] ^ 1])
        connection.execute("UPDATE examples SET sealed = ? WHERE id = ?", (flipped, ids[1]))
    connection.close()
    with pytest.raises(StoreError, match=ids[1]):
        store.examples()
    store.delete(ids[1])
    assert texts(store) == ["message 0", "message 2"]


@pytest.mark.parametrize("change", ["id = 'not' || id", "time = time - 1", "sealed = substr(sealed, 1, 9)"])
def test_a_record_does_not_open_at_another_place_or_time_or_cut_short(store, change):
    store.add("one")
    with sqlite3.connect(store.folder / "examples.sqlite") as connection:
        connection.execute(f"UPDATE examples SET {change}")
    connection.close()
    with pytest.raises(StoreError, match="altered"):
        store.examples()


@pytest.mark.parametrize("keep", [0.5, 0.02])
def test_a_truncated_file_is_refused_and_left_as_it_is(store, keep):
    store.extend([Written(f"message {n} " + "x" * 500) for n in range(40)])
    path = store.folder / "examples.sqlite"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(StoreError, match="store"):
        open_store(store.folder).examples()
    assert path.stat().st_size == int(len(content) * keep)


def test_a_file_that_is_no_database_or_of_a_later_version_is_refused(tmp_path, store):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "examples.sqlite").write_bytes(b"something else entirely" * 100)
    with pytest.raises(StoreError, match="undamaged"):
        open_store(tmp_path / "other")
    with sqlite3.connect(store.folder / "examples.sqlite") as connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(StoreError, match="version"):
        open_store(store.folder)


def test_a_full_disk_is_one_clear_error_and_nothing_that_was_there_is_lost(store):
    store.add("was there")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(StoreError, match="free some space"):
            store.extend([Written("x" * 5_000) for _ in range(100)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert texts(store) == ["was there"]
    store.add("goes on")
    assert texts(store) == ["was there", "goes on"]


WRITER = """
import sys
from pathlib import Path
from fedpeft.device.edge.store import ExampleStore
assert "torch" not in sys.modules
store = ExampleStore(Path(sys.argv[1]))
for n in range(8):
    store.add(f"{sys.argv[2]} {n}")
"""


def test_several_processes_write_at_once_and_nothing_is_lost_even_with_the_first_key(tmp_path):
    ExampleStore(tmp_path).agree()
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name], stderr=subprocess.PIPE, text=True)
        for name in ("ada", "bob", "cy")
    ]
    for writer in writers:
        _, complaint = writer.communicate(timeout=60)
        assert writer.returncode == 0, complaint
    assert sorted(texts(ExampleStore(tmp_path))) == sorted(
        f"{name} {n}" for name in ("ada", "bob", "cy") for n in range(8)
    )
    assert len(list((tmp_path / "keys").iterdir())) == 1


def memory_ring():
    from keyring.backend import KeyringBackend

    class Ring(KeyringBackend):
        """A backend as an operating system's is plugged in, which keeps its secrets in memory."""

        priority = 5.0

        def __init__(self):
            super().__init__()
            self.held = {}

        def set_password(self, service, username, password):
            self.held[service, username] = password

        def get_password(self, service, username):
            return self.held.get((service, username))

        def delete_password(self, service, username):
            del self.held[service, username]

    return Ring()


def test_the_key_lies_in_the_systems_keyring_where_there_is_one_and_nowhere_else(tmp_path, monkeypatch):
    import keyring

    ring, before = memory_ring(), keyring.get_keyring()
    keyring.set_keyring(ring)
    try:
        store = open_store(tmp_path)
        store.agree()
        store.add("hello")
        assert store.contents().keychain == "keyring"
        assert len(ring.held) == 1
        assert not (tmp_path / "keys").exists()
        assert texts(open_store(tmp_path)) == ["hello"]
    finally:
        keyring.set_keyring(before)
    with pytest.raises(StoreError, match="keyring"):
        open_store(tmp_path).examples()
    keyring.set_keyring(ring)
    try:
        assert open_store(tmp_path).forget() == 1
        assert ring.held == {}
    finally:
        keyring.set_keyring(before)


def test_a_keyring_that_refuses_is_an_error_without_its_words(tmp_path):
    class Locked:
        def get_password(self, *_):
            raise RuntimeError("hunter2")

    with pytest.raises(StoreError, match="RuntimeError") as refused:
        SystemKeychain(Locked()).get("x")
    assert "hunter2" not in str(refused.value)


def test_without_a_keyring_a_file_holds_the_key(tmp_path):
    assert isinstance(find_keychain(tmp_path, "file"), FileKeychain)


def test_a_store_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreError, match="store"):
        open_store(tmp_path / "file" / "store")


def test_a_copy_of_the_database_without_its_key_opens_for_nobody(store, tmp_path):
    store.add(SECRET)
    (tmp_path / "thief").mkdir()
    shutil.copy(store.folder / "examples.sqlite", tmp_path / "thief")
    with pytest.raises(StoreError, match="key"):
        open_store(tmp_path / "thief").examples()
