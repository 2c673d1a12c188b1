"""Wherever a publisher or a collector is killed, devices find a whole version, and the next one ends what it began."""

from __future__ import annotations

import shutil
from pathlib import Path

from fedpeft.device.versions.fetch import fetch
from fedpeft.device.versions.installed import Installed
from fedpeft.device.versions.source import FolderSource
from fedpeft.registry.collect import collect
from fedpeft.registry.shelf import Shelf
from tests.device.versions.kills import killed_at
from tests.registry.bundles import TRUST, publisher, put


def fetched(folder: Path, home: Path) -> tuple[int, int]:
    """Let a new device fetch; return the number of its head and the round of its version."""
    shutil.rmtree(home, ignore_errors=True)
    got = fetch(FolderSource(folder), TRUST, Installed(home))
    return got.number, got.version.round


def test_publishing_that_is_killed_before_any_of_its_steps(tmp_path):
    put(publisher(tmp_path / "before"), tmp_path / "drafts", 1, size=10_000)
    folder, kills, seen = tmp_path / "shelf", 0, set()
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "before", folder)

        def work(drafts: Path = tmp_path / f"drafts-{kills}") -> None:
            put(publisher(folder), drafts, 2, base=2, size=10_000)

        if not killed_at(kills + 1, folder, work):
            break
        kills += 1
        before = fetched(folder, tmp_path / "me")
        seen.add(before)
        _, head = put(publisher(folder), tmp_path / f"again-{kills}", 2, base=2, size=10_000)
        assert fetched(folder, tmp_path / "me") == (2, 2) == (head.number, 2)
        assert before <= (2, 2)
        assert Shelf(folder).verify() == {}
        collect(Shelf(folder))
        assert not [path for path in folder.rglob(".*") if path.is_file()]
    assert kills > 15
    assert seen == {(1, 1), (2, 2)}


def test_collecting_that_is_killed_before_any_of_its_steps(tmp_path):
    shelf = publisher(tmp_path / "before")
    for number in range(1, 4):
        put(shelf, tmp_path, number, base=number, size=10_000)
    folder, kills = tmp_path / "shelf", 0
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "before", folder)
        if not killed_at(kills + 1, folder, lambda: collect(Shelf(folder), keep=1)):
            break
        kills += 1
        assert fetched(folder, tmp_path / "me") == (3, 3)
        collect(Shelf(folder), keep=1)
        assert Shelf(folder).verify() == {}
        assert len(list((folder / "blobs").iterdir())) == 8
    assert kills > 5
