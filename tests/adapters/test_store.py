"""A folder of thousands: whole, private, of one base, safe for many processes, made again from itself."""

import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from peft import LoraConfig, PeftModel

from fedpeft.adapters import Adapter
from fedpeft.adapters.layout import CONFIG, WEIGHTS
from fedpeft.adapters.prune import prune
from fedpeft.adapters.quantize import quantize
from fedpeft.adapters.sparse import sparsify
from fedpeft.adapters.store import INDEX, AdapterStore
from fedpeft.errors import AdapterError

from .lora import random_lora
from .models import BASE, logits, saved, tiny


@pytest.fixture
def store(tmp_path) -> AdapterStore:
    return AdapterStore(tmp_path / "store")


def test_what_was_added_comes_back_and_is_described(store):
    adapter = random_lora({"layers.0.q_proj": 3}, r=3, rank_pattern={})
    entry = store.add("anna", adapter, {"user": "anna", "run": "r1"})
    found = store.get("anna")
    assert np.array_equal(found.vector, adapter.vector)
    assert (found.schema, dict(found.config), found.base) == (adapter.schema, dict(adapter.config), BASE)
    assert entry == store.entry("anna")
    assert (entry.peft_type, entry.form, entry.rank, entry.base) == ("LORA", "float32", 3, BASE)
    assert (entry.schema, entry.parameters) == (adapter.schema.digest, adapter.schema.size)
    assert entry.bytes == adapter.file_bytes
    assert entry.tags == {"user": "anna", "run": "r1"}
    assert entry.created.endswith("+00:00")
    assert "anna" in store
    assert "berta" not in store
    assert len(store) == 1
    assert store.base == BASE


def test_lists_are_in_order_and_can_be_narrowed_by_tags(store):
    for name, run in (("c", "1"), ("a", "2"), ("b", "1")):
        store.add(name, random_lora(), {"run": run, "user": name})
    assert [e.name for e in store.list()] == ["a", "b", "c"]
    assert [e.name for e in store.list(run="1")] == ["b", "c"]
    assert [e.name for e in store.list(run="1", user="c")] == ["c"]
    assert store.list(run="3") == []


def test_peft_opens_a_stored_adapter_where_it_lies(store, tmp_path):
    adapter, model = saved(LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"), tmp_path / "pefts")
    store.add("anna", adapter)
    opened = PeftModel.from_pretrained(tiny(), store.folder("anna"))
    assert np.array_equal(logits(opened), logits(model))


@pytest.mark.parametrize("form", ["int8", "int4", "sparse"])
def test_packed_adapters_stay_packed_on_disk_and_come_back_dense(store, form):
    adapter = random_lora()
    packed = sparsify(prune(adapter, 0.2).adapter) if form == "sparse" else quantize(adapter, int(form[-1]))
    entry = store.add("small", packed)
    assert (entry.form, entry.bytes) == (form, packed.file_bytes)
    assert (store.folder("small") / WEIGHTS[form]).is_file()
    assert np.array_equal(store.get("small").vector, packed.dense().vector)
    assert store.verify() == {}


def test_everything_is_the_owners_alone(store):
    store.add("anna", random_lora())
    for path in [store.root, *store.root.rglob("*")]:
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


def test_another_base_is_refused(store, tmp_path):
    store.add("anna", random_lora())
    foreign = replace(random_lora(), base="c" * 64)
    with pytest.raises(AdapterError, match="adapter base: found 'cccccccccccc…', expected the store's, bbbbbbbbbbbb…"):
        store.add("berta", foreign)
    with pytest.raises(AdapterError, match="store base"):
        AdapterStore(store.root, "c" * 64)
    with pytest.raises(AdapterError, match="adapter base"):
        AdapterStore(tmp_path / "empty", "c" * 64).add("anna", random_lora())
    assert AdapterStore(store.root, BASE).base == BASE
    assert len(list((store.root / "adapters").iterdir())) == 1


@pytest.mark.parametrize("name", ["", ".", "..", ".x", "x.", "a/b", "../up", "a b", "a\n", "ä", "x" * 121, "-x", "a\0"])
def test_names_that_are_no_names_are_refused(store, name):
    with pytest.raises(AdapterError, match="adapter name"):
        store.add(name, random_lora())
    assert len(store) == 0


@pytest.mark.parametrize("name", ["a", "user-02", "run.2026.user@host", "x" * 120, "_", "a=b+c"])
def test_names_of_people_and_runs_are_names(store, name):
    store.add(name, random_lora())
    assert store.rebuild() == 1
    assert [e.name for e in store.list()] == [name]
    assert store.verify() == {}


def test_a_name_is_replaced_only_on_purpose(store):
    store.add("anna", random_lora(seed=1))
    with pytest.raises(AdapterError, match="adapter name: found 'anna', expected a name that is free"):
        store.add("anna", random_lora(seed=2))
    assert np.array_equal(store.get("anna").vector, random_lora(seed=1).vector)
    store.add("anna", random_lora(seed=2), replacing=True)
    assert np.array_equal(store.get("anna").vector, random_lora(seed=2).vector)
    store.add("anna", random_lora(seed=2), {"user": "anna"}, replacing=True)
    assert store.entry("anna").tags == {"user": "anna"}
    assert len(list((store.root / "adapters").iterdir())) == 1


def test_what_is_removed_is_gone(store):
    store.add("anna", random_lora())
    store.get("anna")
    store.remove("anna")
    assert len(store) == 0
    assert list((store.root / "adapters").iterdir()) == []
    for ask in (store.get, store.entry, store.folder, store.remove, store.verify):
        with pytest.raises(AdapterError, match="adapter name: found 'anna'"):
            ask("anna")


def test_a_near_name_is_suggested(store):
    store.add("user-02", random_lora())
    with pytest.raises(AdapterError, match="did you mean 'user-02'"):
        store.get("user-20")


def test_adapters_used_last_stay_in_memory_and_callers_cannot_spoil_them(tmp_path):
    store = AdapterStore(tmp_path, cached=2)
    for name in "abc":
        store.add(name, random_lora(seed=ord(name)))
    for name in "aba":
        store.get(name).vector[:] = 0
    for path in (store.root / "adapters").iterdir():
        shutil.rmtree(path)
    for name in "ab":
        assert np.array_equal(store.get(name).vector, random_lora(seed=ord(name)).vector)
    with pytest.raises(AdapterError, match="adapter c: found 'nothing', expected its folder"):
        store.get("c")


def damaged(path, how):
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif how == "flipped":
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(bytes(content))
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["cut", "flipped", "gone"])
@pytest.mark.parametrize("file", [WEIGHTS["float32"], CONFIG])
def test_a_damaged_adapter_is_refused_named_and_left_alone(store, how, file):
    for name in ("anna", "berta"):
        store.add(name, random_lora(seed=len(name)))
    damaged(store.folder("anna") / file, how)
    with pytest.raises(AdapterError, match=r"adapter anna: .*restore the folder from a copy, or remove the adapter"):
        store.get("anna")
    assert store.verify().keys() == store.verify("anna").keys() == {"anna"}
    assert store.verify("berta") == {}
    assert store.rebuild() == 1
    assert [e.name for e in store.list()] == ["berta"]
    assert [name.partition(".")[0] for name in store.verify()] == ["anna"]


@pytest.mark.parametrize("how", ["deleted", "cut short", "rubbish"])
def test_a_lost_index_is_made_again_from_the_folders(store, how):
    before = [store.add(f"user-{i}", random_lora(seed=i), {"user": str(i)}) for i in range(5)]
    store.add("user-1", random_lora(seed=11), {"user": "one"}, replacing=True)
    before = store.list()
    for path in store.root.glob(f"{INDEX}*"):
        if path.name != INDEX or how == "deleted":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:5000] if how == "cut short" else b"rubbish" * 1000)
    if how == "deleted":
        again = AdapterStore(store.root)
    else:
        with pytest.raises(AdapterError, match=r"adapter index .*made again from the folders"):
            AdapterStore(store.root).list()
        assert store.rebuild() == 5
        again = AdapterStore(store.root)
    assert again.list() == before
    assert again.verify() == {}


def test_an_index_of_a_later_version_is_refused(store):
    with sqlite3.connect(store.root / INDEX) as connection:
        connection.execute("PRAGMA user_version=9")
    with pytest.raises(AdapterError, match="found 'version 9', expected version 1"):
        AdapterStore(store.root)


def test_a_writer_that_died_leaves_nothing_that_counts(store):
    """Killed while it wrote: a hidden draft. Killed after renaming, before the index knew: a whole folder."""
    store.add("anna", random_lora(seed=1))
    draft = store.root / "adapters" / ".draft"
    random_lora().save(draft)
    shutil.copytree(store.folder("anna"), store.root / "adapters" / store.folder("anna").name.replace("anna", "late"))
    assert [e.name for e in store.list()] == ["anna"]
    assert [name.partition(".")[0] for name in store.verify()] == ["late"]
    assert store.rebuild() == 2
    assert store.verify() == {}
    assert draft.exists()
    os.utime(draft, (0, 0))
    store.rebuild()
    assert not draft.exists()


def test_of_two_adapters_of_one_name_the_newer_stays(store):
    store.add("anna", random_lora(seed=1))
    old = store.folder("anna")
    shutil.copytree(old, store.root / "kept")
    store.add("anna", random_lora(seed=2), replacing=True)
    shutil.move(store.root / "kept", old)
    assert store.rebuild() == 1
    assert np.array_equal(store.get("anna").vector, random_lora(seed=2).vector)
    assert store.verify() == {}


def test_a_full_disk_leaves_the_store_as_it_was(store, monkeypatch):
    store.add("anna", random_lora(seed=1))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fedpeft.adapters.layout.write_private", full)
    with pytest.raises(OSError, match="No space left"):
        store.add("anna", random_lora(seed=2), replacing=True)
    assert np.array_equal(AdapterStore(store.root).get("anna").vector, random_lora(seed=1).vector)
    assert store.verify() == {}
    assert len(list((store.root / "adapters").iterdir())) == 1


_WRITER = """
import sys
from pathlib import Path
from tests.adapters.lora import random_lora
from fedpeft.adapters.store import AdapterStore
root, who = Path(sys.argv[1]), int(sys.argv[2])
for i in range(15):
    store = AdapterStore(root)
    store.add(f"own-{who}-{i}", random_lora(1, seed=1000 * who + i), {"writer": str(who)})
    store.add("contended", random_lora(1, seed=1000 * who + i), {"writer": str(who)}, replacing=True)
    store.get("contended")
    if i % 5 == 4:
        store.remove(f"own-{who}-{i}")
"""


@pytest.mark.slow
def test_two_processes_may_write_at_once(tmp_path, repository):
    root = tmp_path / "store"
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(root), str(who)], cwd=repository, stderr=subprocess.PIPE)
        for who in (1, 2)
    ]
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors.decode()
    store = AdapterStore(root)
    assert len(store) == 2 * 12 + 1
    assert len(store.list(writer="1")) + len(store.list(writer="2")) == 25
    assert store.verify() == {}
    assert not list((root / "adapters").glob(".*"))
    for entry in store.list():
        if entry.name != "contended":
            _, who, i = entry.name.split("-")
            assert np.array_equal(store.get(entry.name).vector, random_lora(1, seed=1000 * int(who) + int(i)).vector)


_ENDLESS = """
import sys
from itertools import count
from pathlib import Path
from tests.adapters.lora import random_lora
from fedpeft.adapters.store import AdapterStore
store = AdapterStore(Path(sys.argv[1]))
for i in count():
    store.add(f"a{i % 3}", random_lora(1, seed=i), replacing=True)
    print(i, flush=True)
"""


@pytest.mark.parametrize("writes", [2, 3, 5])
def test_a_killed_writer_leaves_whole_adapters_and_a_store_that_works(tmp_path, repository, writes):
    root = tmp_path / "store"
    with subprocess.Popen(
        [sys.executable, "-c", _ENDLESS, str(root)], cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as writer:
        for _ in range(writes):
            assert writer.stdout.readline()
        time.sleep(0.003 * writes)
        writer.kill()
    store = AdapterStore(root)
    assert len(store) >= min(writes, 3)
    for entry in store.list():
        assert store.get(entry.name).schema == random_lora(1).schema
    assert all("not in the index" in problem for problem in store.verify().values())
    assert store.rebuild() == len(store) >= min(writes, 3)
    assert store.verify() == {}
    store.add("next", random_lora(1))


def test_threads_may_share_a_store(store):
    def work(i: int) -> Adapter:
        store.add(f"t{i}", random_lora(1, seed=i))
        return store.get(f"t{i}")

    with ThreadPoolExecutor(8) as pool:
        for i, adapter in enumerate(pool.map(work, range(40))):
            assert np.array_equal(adapter.vector, random_lora(1, seed=i).vector)
    assert len(store) == 40


def test_the_note_beside_an_adapter_is_plain_json(store):
    store.add("anna", random_lora(), {"user": "anna"})
    (note,) = store.folder("anna").glob("fedpeft_adapter.json")
    assert json.loads(note.read_text())["tags"] == {"user": "anna"}
