"""What a device makes of a shelf that is well, of one that is not, and of its own full or damaged disk."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fedpeft.device.bundle import Bundle
from fedpeft.device.versions import fetch as fetching
from fedpeft.device.versions.document import Trust
from fedpeft.device.versions.fetch import Limits, fetch
from fedpeft.device.versions.installed import Installed
from fedpeft.device.versions.source import FolderSource
from fedpeft.errors import ShelfError
from tests.device.versions.conftest import QUICK
from tests.registry.bundles import OTHER_KEY, TRUST, publisher, put


def bring(shelf, installed, channel="stable", trust=TRUST, **options):
    return fetch(FolderSource(shelf.folder), trust, installed, channel, patience=QUICK, **options)


def whole(installed: Installed, version: str) -> bool:
    """Say whether a version answers, with every file of it as it was signed."""
    pair = installed.current()
    if pair is None or pair.version.id != version:
        return False
    for kind, folder in (("base", pair.base), ("adapter", pair.adapter)):
        Bundle.open(folder, kind, pair.trusted).verify()
    return True


def test_the_first_version_is_installed_and_the_next_brings_only_what_is_new(shelf, installed, tmp_path):
    assert installed.current() is None
    first, _ = put(shelf, tmp_path, 1)
    got = bring(shelf, installed)
    assert (got.outcome, got.number, got.version) == ("installed", 1, first)
    assert got.bytes == sum(file.bytes for _, _, file in first.files())
    assert whole(installed, first.id)
    assert bring(shelf, installed).bytes == 0

    second, _ = put(shelf, tmp_path, 2)
    got = bring(shelf, installed)
    assert (got.outcome, got.bytes) == ("installed", second.size("adapter"))
    third, _ = put(shelf, tmp_path, 3, graph=7)  # another graph over the same weights
    got = bring(shelf, installed)
    assert got.bytes < third.size("base") // 10 + third.size("adapter")
    assert whole(installed, third.id)
    assert installed.state().previous == second.id
    assert len(list((installed.folder / "bundles").iterdir())) == 4  # the first version's adapter is gone
    assert list((installed.folder / "parts").iterdir()) == []


def test_nothing_on_the_device_can_be_read_by_others(shelf, installed, tmp_path):
    put(shelf, tmp_path, 1)
    bring(shelf, installed)
    assert installed.folder.stat().st_mode & 0o077 == 0
    assert (installed.folder / "state.json").stat().st_mode & 0o077 == 0


def test_an_older_head_or_another_of_the_same_number_is_refused_and_a_rollback_is_followed(shelf, installed, tmp_path):
    first, _ = put(shelf, tmp_path, 1)
    bring(shelf, installed)
    old = shutil.copytree(shelf.folder, tmp_path / "old")
    put(shelf, tmp_path, 2)
    bring(shelf, installed)
    with pytest.raises(ShelfError, match=r"number: found 1, expected 2 or higher.*replays"):
        fetch(FolderSource(old), TRUST, installed)
    put(publisher(old), tmp_path / "fork", 3)
    with pytest.raises(ShelfError, match="number 2"):
        fetch(FolderSource(old), TRUST, installed)
    assert installed.current().version.round == 2
    shelf.rollback()
    got = bring(shelf, installed)
    assert (got.number, got.outcome, got.bytes) == (3, "installed", 0)  # its bundles are here still
    assert whole(installed, first.id)


def test_a_stranger_another_federation_and_a_lying_shelf_are_refused(shelf, installed, tmp_path):
    version, _ = put(shelf, tmp_path, 1)
    theirs = publisher(tmp_path / "theirs", OTHER_KEY)
    put(theirs, tmp_path / "theirs-drafts", 9)
    with pytest.raises(ShelfError, match="signer"):
        bring(theirs, installed)
    with pytest.raises(ShelfError, match="federation"):
        bring(shelf, installed, trust=Trust("another", TRUST.signers))
    assert installed.current() is None
    installed = Installed(tmp_path / "you")
    other, _ = put(shelf, tmp_path, 2, channel="beta")
    shutil.copyfile(shelf.folder / "versions" / other.id, shelf.folder / "versions" / version.id)
    with pytest.raises(ShelfError, match="the one of that name"):
        bring(shelf, installed)
    with pytest.raises(ShelfError, match="file that is there"):
        bring(shelf, installed, "gamma")
    (shelf.folder / "versions" / "head" / "stable").write_bytes((shelf.folder / "versions/head/beta").read_bytes())
    with pytest.raises(ShelfError, match="channel"):
        bring(shelf, installed)
    assert installed.current() is None


def test_a_wrong_file_is_refused_what_answers_stays_and_the_right_one_is_taken_later(shelf, installed, tmp_path):
    first, _ = put(shelf, tmp_path, 1)
    bring(shelf, installed)
    second, _ = put(shelf, tmp_path, 2, base=2)
    blob = shelf.blob(second.bundles.base["model.onnx.data"].sha256)
    right = blob.read_bytes()
    for wrong, said in ((right[:-1] + b"?", "another file"), (right + b"?", "more bytes")):
        blob.write_bytes(wrong)
        with pytest.raises(ShelfError, match=said):
            bring(shelf, installed)
        assert whole(installed, first.id)
    blob.unlink()
    with pytest.raises(ShelfError, match="a file of 300000 bytes"):
        bring(shelf, installed)
    blob.write_bytes(right)
    assert bring(shelf, installed).outcome == "installed"
    assert whole(installed, second.id)


def test_a_version_that_is_too_large_is_refused_before_a_byte_is_written(shelf, installed, tmp_path):
    put(shelf, tmp_path, 1)
    with pytest.raises(ShelfError, match="at most 1000"):
        bring(shelf, installed, limits=Limits(base=1000))
    with pytest.raises(ShelfError, match="at most 2000"):
        bring(shelf, installed, limits=Limits(adapter=2000))
    assert list((installed.folder / "parts").iterdir()) == []


def test_a_disk_without_room_is_known_before_and_one_that_fills_up_leaves_what_answers(
    shelf, installed, tmp_path, monkeypatch
):
    first, _ = put(shelf, tmp_path, 1)
    bring(shelf, installed)
    put(shelf, tmp_path, 2, base=2)
    usage = shutil.disk_usage(tmp_path)._replace(free=200_000)
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ShelfError, match=r"200000 bytes free.*free some space"):
        bring(shelf, installed)
    monkeypatch.undo()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(ShelfError, match=r"a full disk.*free some space"):
            bring(shelf, installed)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert whole(installed, first.id)
    assert not [p for p in (installed.folder / "parts").iterdir() if p.stat().st_size > 90_000]
    assert bring(shelf, installed).outcome == "installed"


def test_going_back_on_the_device_lasts_until_the_channel_has_another(shelf, installed, tmp_path):
    first, _ = put(shelf, tmp_path, 1)
    bring(shelf, installed)
    with pytest.raises(ShelfError, match="previous version"):
        installed.rollback()
    put(shelf, tmp_path, 2)
    bring(shelf, installed)
    assert installed.rollback() == first
    assert bring(shelf, installed).outcome == "refused"
    assert whole(installed, first.id)
    third, _ = put(shelf, tmp_path, 3)
    assert bring(shelf, installed).outcome == "installed"
    assert whole(installed, third.id)


@pytest.mark.parametrize("what", ["file", "missing", "manifest", "link"])
def test_a_damaged_installation_is_mended_with_what_is_still_good(shelf, installed, tmp_path, what):
    version, _ = put(shelf, tmp_path, 1)
    bring(shelf, installed)
    base = installed.current().base
    if what == "file":
        (base / "model.onnx").write_bytes(b"x" * 500)
    elif what == "missing":
        (base / "model.onnx").unlink()
    elif what == "manifest":
        (base / "manifest.json").write_bytes(b"{}")
    else:
        (base / "model.onnx").unlink()
        (base / "model.onnx").symlink_to("/dev/zero")
    got = bring(shelf, installed)
    assert got.outcome == "current"
    assert got.bytes >= 500 or what == "manifest"
    assert got.bytes < 10_000 or what == "manifest"
    assert whole(installed, version.id)


def test_damaged_notes_of_the_device_are_named_and_never_lead_back(shelf, installed, tmp_path):
    put(shelf, tmp_path, 1)
    bring(shelf, installed)
    (installed.folder / "heads" / "stable").write_bytes(b"{")
    with pytest.raises(ShelfError, match="heads/stable"):
        bring(shelf, installed)
    (installed.folder / "state.json").write_text("{")
    with pytest.raises(ShelfError, match=r"state.json.*fetch again"):
        installed.current()


def test_an_app_that_pins_another_key_follows_its_shelf_from_the_first_number(shelf, installed, tmp_path):
    put(shelf, tmp_path, 1)
    put(shelf, tmp_path, 2)
    bring(shelf, installed)
    moved = publisher(tmp_path / "moved", OTHER_KEY)
    version, _ = put(moved, tmp_path / "moved-drafts", 3)
    with pytest.raises(ShelfError, match="signer"):
        bring(moved, installed)
    assert bring(moved, installed, trust=moved.trust).outcome == "installed"
    assert whole(installed, version.id)
    assert whole(installed, version.id)
    installed.rollback()
    assert installed.current().version.round == 2


def test_two_that_fetch_at_once_take_turns_and_the_second_finds_it_done(shelf, installed, tmp_path):
    version, _ = put(shelf, tmp_path, 1)
    got = []
    work = [threading.Thread(target=lambda: got.append(bring(shelf, installed))) for _ in range(4)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert sorted(found.outcome for found in got) == ["current"] * 3 + ["installed"]
    assert sorted(found.bytes > 0 for found in got) == [False] * 3 + [True]
    assert whole(installed, version.id)


def test_fetching_imports_nothing_that_trains_and_no_http_library(shelf, tmp_path):
    put(shelf, tmp_path, 1)
    (tmp_path / "pinned.json").write_text(TRUST.to_json())
    assert Trust.read(tmp_path / "pinned.json") == TRUST
    program = f"""
import sys
from pathlib import Path
from fedpeft.device.versions.document import Trust
from fedpeft.device.versions.fetch import fetch
from fedpeft.device.versions.installed import Installed
from fedpeft.device.versions.source import open_source
open_source("https://localhost:1")
fetch(open_source({str(shelf.folder)!r}), Trust.read(Path({str(tmp_path / "pinned.json")!r})), Installed(Path({str(tmp_path / "me")!r})))
print(sorted({{"torch", "transformers", "peft", "flwr", "safetensors", "httpx", "requests", "starlette"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_a_file_that_pins_nothing_is_refused(tmp_path: Path):
    for content in (
        "{",
        "[]",
        '{"federation": "a"}',
        '{"federation": "a", "operator": "xy"}',
        '{"federation": "a", "operator": "00"}',
    ):
        (tmp_path / "pinned.json").write_text(content)
        with pytest.raises(ShelfError, match=r"pinned\.json"):
            Trust.read(tmp_path / "pinned.json")
