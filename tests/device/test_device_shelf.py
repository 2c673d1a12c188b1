"""Adapters that were loaded are there at once, as long as their bundle is what it was."""

import gc
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fedpeft.device import LoadedAdapter, Runtime
from fedpeft.errors import BundleError, FedpeftError

IDS = [1, 3, 300, 400]


@pytest.fixture
def small(run: Path) -> Runtime:
    return Runtime(run / "device" / "base", adapters=2)


def copies(run: Path, tmp_path: Path, count: int) -> list[Path]:
    owners = ["ada", "global"]
    return [shutil.copytree(run / "device" / "adapters" / owners[i % 2], tmp_path / f"p{i}") for i in range(count)]


def test_the_same_bundle_is_loaded_once_and_read_again_when_a_file_changes(small, ada_copy):
    first = small.load(ada_copy)
    assert small.load(ada_copy) is first is small.load(ada_copy / ".." / "ada")
    content = (ada_copy / "adapter_config.json").read_bytes()
    (ada_copy / "adapter_config.json").write_bytes(content)
    assert small.load(ada_copy) is not first
    (ada_copy / "adapter_config.json").write_bytes(content[:-1] + b" ")
    with pytest.raises(BundleError, match="adapter_config"):
        small.load(ada_copy)
    shutil.rmtree(ada_copy)
    with pytest.raises(BundleError, match="No such file"):
        small.load(ada_copy)


def test_the_least_recently_used_leaves_and_stays_usable_for_whoever_holds_it(small, run, tmp_path):
    a, b, c = copies(run, tmp_path, 3)
    held = small.load(a)
    expected = small.logits(IDS, held)
    small.load(b)
    small.load(a)
    small.load(c)
    assert len(small._loader._shelf) == 2
    assert small.load(a) is held
    small.load(b)
    small.load(c)
    assert small.load(a) is not held
    gc.collect()
    assert np.array_equal(small.logits(IDS, held), expected)
    assert np.abs(expected - small.logits(IDS)).max() > 0.1


def test_an_adapter_s_private_copy_is_closed_to_others_and_goes_with_it(small, ada_copy):
    adapter = small.load(ada_copy)
    copy = adapter.copy
    assert copy.stat().st_mode & 0o777 == 0o600
    assert copy.parent == Path(tempfile.gettempdir())
    small.load(ada_copy)
    del adapter
    small._loader._shelf._kept.clear()
    gc.collect()
    assert not copy.exists()


def test_a_refused_adapter_leaves_no_copy(small, ada_copy, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    content = bytearray((ada_copy / "adapter.onnx_adapter").read_bytes())
    (ada_copy / "adapter.onnx_adapter").write_bytes(b"?")
    with pytest.raises(BundleError):
        small.load(ada_copy)
    assert not list((tmp_path / "temporary").iterdir())
    (ada_copy / "adapter.onnx_adapter").write_bytes(content)
    adapter = small.load(ada_copy)
    assert list((tmp_path / "temporary").iterdir()) == [adapter.copy]


def test_a_link_that_moves_while_its_adapter_is_read_does_not_put_one_under_anothers_path(run, tmp_path, small):
    first, second = copies(run, tmp_path, 2)
    link = tmp_path / "link"
    link.symlink_to(first)
    load = small._loader._shelf._load

    def move_and_load(folder: Path) -> LoadedAdapter:
        link.unlink()
        link.symlink_to(second)
        return load(folder)

    small._loader._shelf._load = move_and_load
    assert small.load(link).owner == "ada"
    small._loader._shelf._load = load
    assert small.load(first).owner == "ada" and small.load(link).owner == "global"


def test_an_adapter_read_meanwhile_from_other_files_does_not_stay_in_place_of_the_newer(run, tmp_path, small):
    (folder,) = copies(run, tmp_path, 1)
    old = small.load(folder)
    stamp = next(iter(small._loader._shelf._kept.values()))[0]
    load = small._loader._shelf._load

    def load_while_another_thread_keeps_the_old(path: Path) -> LoadedAdapter:
        small._loader._shelf._kept[path.resolve()] = (stamp, old)
        return load(path)

    os.utime(folder / "manifest.json")
    small._loader._shelf._load = load_while_another_thread_keeps_the_old
    new = small.load(folder)
    small._loader._shelf._load = load
    assert new is not old
    assert small.load(folder) is new


def test_many_threads_get_the_adapter_they_asked_for(run, tmp_path):
    runtime = Runtime(run / "device" / "base", adapters=3)
    folders = copies(run, tmp_path, 6)
    expected = [runtime.logits(IDS, runtime.load(folder)) for folder in folders]

    def ask(i: int) -> bool:
        return np.array_equal(runtime.logits(IDS, runtime.load(folders[i % 6])), expected[i % 6])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(120)))
    assert len(runtime._loader._shelf) <= 3
    assert not np.array_equal(expected[0], expected[1])


def test_no_shelf_at_all_is_possible_and_less_is_not(run, ada_copy):
    runtime = Runtime(run / "device" / "base", adapters=0)
    assert runtime.load(ada_copy) is not runtime.load(ada_copy)
    with pytest.raises(FedpeftError, match="adapters: found -1"):
        Runtime(run / "device" / "base", adapters=-1)


def test_tensors_are_read_once_for_all_who_hold_them_and_not_kept_for_nobody(ada):
    first, second = ada.tensors(), ada.tensors()
    assert first is second
    assert {name: tuple(v.shape()) for name, v in first.items()} == dict(ada.manifest.tensors)
    del first, second
    gc.collect()
    assert ada._read[-1]() is None


def test_an_adapter_whose_private_copy_was_cleaned_away_says_so_and_is_loaded_again(small, ada_copy, ada):
    adapter = small.load(ada_copy)
    adapter.copy.unlink()
    assert np.array_equal(small.logits(IDS, adapter), small.logits(IDS, ada))
    with pytest.raises(BundleError, match="load it again"):
        small.converse(adapter)
    again = small.load(ada_copy)
    assert again is not adapter
    assert next(small.generate(IDS, again, ends=())) == next(small.generate(IDS, ada, ends=()))


def test_a_forked_child_leaves_its_parents_copies_alone(small, ada_copy):
    adapter = small.load(ada_copy)
    child = os.fork()
    if not child:
        ended = 1
        try:
            small._loader._shelf._kept.clear()
            del adapter
            gc.collect()
            ended = 0
        finally:
            os._exit(ended)
    assert os.waitpid(child, 0)[1] == 0
    assert adapter.whole and adapter.tensors()
