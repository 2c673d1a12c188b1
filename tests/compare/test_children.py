"""Work in forked processes: answers, failures, deaths, and nobody left behind."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from fedpeft.compare.children import FAILED, crew, forked
from fedpeft.errors import ScenarioError


def test_an_answer_comes_back_and_the_parent_is_as_it_was() -> None:
    held = [1]

    def job() -> dict[str, Any]:
        held.append(2)
        return {"held": held, "pid": os.getpid()}

    answer = forked(job)
    assert answer["held"] == [1, 2] and held == [1]
    assert answer["pid"] != os.getpid()


def test_a_refusal_and_a_fault_are_told_apart() -> None:
    def refuse() -> dict[str, Any]:
        raise ScenarioError("method.rank", 9, "at most 4")

    def break_() -> dict[str, Any]:
        raise RuntimeError("shapes differ\nand more")

    assert forked(refuse) == {FAILED: "refused", "reason": "method.rank: found 9, expected at most 4"}
    assert forked(break_) == {FAILED: "failed", "reason": "RuntimeError: shapes differ"}


def test_a_process_that_is_killed_is_a_failure_with_its_signal() -> None:
    def die() -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    answer = forked(die)
    assert answer[FAILED] == "failed" and "SIGKILL" in answer["reason"]


def test_a_crew_answers_every_job_once() -> None:
    jobs = [(str(i), lambda i=i: {"square": i * i}) for i in range(7)]
    assert sorted((name, answer["square"]) for name, answer in crew(jobs, 3)) == [(str(i), i * i) for i in range(7)]


def test_leaving_early_ends_jobs_and_what_they_started(tmp_path: Path) -> None:
    def inner() -> dict[str, Any]:
        (tmp_path / "inner").write_text(str(os.getpid()))
        time.sleep(60)
        return {}

    def wait_long() -> dict[str, Any]:
        return forked(inner)

    def soon() -> dict[str, Any]:
        while not (tmp_path / "inner").exists():
            time.sleep(0.01)
        return {}

    working = crew([("long", wait_long), ("soon", soon)], 2)
    assert next(working)[0] == "soon"
    working.close()
    pid = int((tmp_path / "inner").read_text())
    for _ in range(200):
        if not _runs(pid):
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} still runs")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
