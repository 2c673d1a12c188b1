"""Wherever a process is killed, the device has the old version or the new one, and the next attempt ends well."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

from fedpeft.device.versions.installed import Installed
from tests.device.versions.kills import killed_at
from tests.device.versions.network import served
from tests.device.versions.test_versions_fetch import bring, whole
from tests.registry.bundles import TRUST, put


def test_a_fetch_that_is_killed_before_any_of_its_steps_leaves_a_version_that_answers(shelf, tmp_path):
    first, _ = put(shelf, tmp_path, 1, size=50_000)
    home = tmp_path / "me"
    bring(shelf, Installed(home))
    second, _ = put(shelf, tmp_path, 2, base=2, size=50_000)
    shutil.copytree(home, tmp_path / "before")
    kills, answered = 0, set()
    while True:
        shutil.rmtree(home)
        shutil.copytree(tmp_path / "before", home)
        installed = Installed(home)
        if not killed_at(kills + 1, home, lambda: bring(shelf, installed)):  # noqa: B023
            break
        kills += 1
        answers = installed.current().version
        assert whole(installed, answers.id)
        answered.add(answers.round)
        bring(shelf, installed)
        assert whole(installed, second.id)
        assert installed.state().previous == first.id
        assert len(list((installed.folder / "bundles").iterdir())) == 4
        assert list((installed.folder / "parts").iterdir()) == []
    assert kills > 40
    assert answered == {1, 2}


def test_going_back_that_is_killed_has_happened_or_not(shelf, tmp_path):
    home = tmp_path / "me"
    for number in (1, 2):
        put(shelf, tmp_path, number)
        bring(shelf, Installed(home))
    shutil.copytree(home, tmp_path / "before")
    kills = 0
    while True:
        shutil.rmtree(home)
        shutil.copytree(tmp_path / "before", home)
        installed = Installed(home)
        if not killed_at(kills + 1, home, installed.rollback):
            break
        kills += 1
        assert whole(installed, installed.current().version.id)
    assert kills > 2
    assert installed.current().version.round == 1


def test_a_process_killed_in_the_middle_of_a_download_is_followed_by_one_that_goes_on(shelf, tls, tmp_path):
    size = 6_000_000
    version, _ = put(shelf, tmp_path, 1, size=size)
    (tmp_path / "pinned.json").write_text(TRUST.to_json())
    part = tmp_path / "me" / "versions" / "parts" / f"{version.bundles.base['model.onnx.data'].sha256}.part"
    with served(shelf.folder, tls) as server:
        command = [sys.executable, "-m", "fedpeft", "client", "fetch", "--home", str(tmp_path / "me"), "--json"]
        command += ["--from", server.url, "--pinned", str(tmp_path / "pinned.json"), "--ca", str(server.ca)]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while not (part.exists() and part.stat().st_size > 100_000) and child.poll() is None:
            time.sleep(0.0005)
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        had = sum(path.stat().st_size for path in part.parent.iterdir())
        assert 0 < part.stat().st_size < size
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["bytes"] == version.size("base") + version.size("adapter") - had
    assert whole(Installed(tmp_path / "me"), version.id)
