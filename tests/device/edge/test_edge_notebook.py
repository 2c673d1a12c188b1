"""The example app, as a person runs it: a real process on a terminal, and on a pipe with real training."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

from fedpeft.device.edge.home import Home
from tests.device.edge.conftest import persons_messages


def notebook(home: Path, run: Path, *options: str) -> list[str]:
    return [
        sys.executable, "-m", "client.notebook", "--home", str(home), "--runs", str(run.parent), "--run", run.name, *options
    ]  # fmt: skip


def written(home: Path, run: Path, repository: Path, text: str, *options: str) -> str:
    done = subprocess.run(
        notebook(home, run, *options),
        input=text,
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_it_learns_from_what_was_written_and_forgets_it(smoke_run, repository, tmp_path):
    home, ask = tmp_path / "me", "? I am \n? haha \n? yeah I \n? do you \n"
    own = [m.text.replace("\n", " ") for m in persons_messages("user-02", 400) if m.mine]
    lines = "".join(f"{text}\n" for text in own if not text.startswith((":", "?")))
    # The first twenty lines are too few for its taste: it learns when it is told to, and after a restart it still knows.
    said = written(home, smoke_run, repository, f"{ask}:yes\n{lines}:learn\n{ask}", "--every", "100000")
    words = re.findall(r"^\S+  \S+  \S+$", said, flags=re.MULTILINE)
    learnt = re.search(r"learnt from (\d+) lines.* (\d\.\d+) → (\d\.\d+) nats", said)
    assert learnt, said
    assert float(learnt[3]) < float(learnt[2])
    assert len(words) == 8
    assert words[:4] != words[4:]
    again = written(home, smoke_run, repository, f"{ask}:status\n:forget\n{ask}:status\n")
    found = re.findall(r"^\S+  \S+  \S+$", again, flags=re.MULTILINE)
    assert found[:4] == words[4:]
    assert found[4:] == words[:4]
    assert "lines kept: 0" in again
    assert Home(home).store().contents().messages == 0


def test_it_keeps_nothing_before_the_person_agreed_and_says_what_it_does_not_understand(run, repository, tmp_path):
    said = written(tmp_path / "me", run, repository, "secret\n:what\n:learn\n:status\n:no\n")
    assert "not kept" in said
    assert ":what is no command" in said
    assert "! consent" in said
    assert "lines kept: 0; consent not given" in said


def test_it_learns_by_itself_in_the_background_and_says_why_it_cannot(run, repository, tmp_path):
    said = written(tmp_path / "me", run, repository, ":yes\none\ntwo\nthree\n", "--every", "2")
    # Three lines are too few to train on; the notebook says so and goes on.
    assert "learning in the background" in said
    assert "write some more" in said


def test_a_home_or_run_that_cannot_be_used_is_one_line(repository, tmp_path):
    done = subprocess.run(
        notebook(tmp_path / "me", tmp_path / "runs" / "none"),
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_on_a_terminal_each_key_brings_words_and_tab_takes_the_first(run, repository, tmp_path):
    Home(tmp_path / "me").store().agree()
    ours, theirs = pty.openpty()
    child = subprocess.Popen(notebook(tmp_path / "me", run), cwd=repository, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)

    def until(wanted: str) -> str:
        seen, limit = "", time.monotonic() + 60
        while not re.search(wanted, seen):
            assert time.monotonic() < limit, seen
            if select.select([ours], [], [], 1)[0]:
                seen += os.read(ours, 4096).decode(errors="replace")
        return seen

    try:
        until("> .*\x1b\\[2m")
        os.write(ours, b"I am\x1b[D g")
        first = re.findall("I am g   \x1b\\[2m(\\S+)", until("I am g   \x1b\\[2m"))[-1]
        assert first.startswith("g")
        os.write(ours, b"\t")
        until(f"I am {first} ")
        os.write(ours, b"x\x7f\r")
        until("> ")
        os.write(ours, b"\x04")
        assert child.wait(30) == 0
    finally:
        child.kill()
        child.wait()
        os.close(ours)
    assert [e.text for e in Home(tmp_path / "me").store().examples()] == [f"I am {first}"]
