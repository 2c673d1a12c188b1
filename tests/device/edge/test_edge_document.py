"""The page about devices that learn shows code that runs, over a real run, and learns."""

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

from fedpeft.device.edge.events import Event
from fedpeft.device.edge.policy import CONDITIONS
from fedpeft.device.edge.retention import Retention

PAGE = (Path(__file__).parents[3] / "docs" / "edge.md").read_text()


def test_every_block_runs_and_the_first_one_learns(smoke_run, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(smoke_run)
    first, *others = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert "lighthouse'" in said(first, tmp_path).splitlines()[-1]
    for block in others:
        assert said(block, tmp_path).strip()


def said(block: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_names_every_event_condition_and_limit():
    for event in Event.__args__:
        assert f"`{event.__name__}`" in PAGE
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE)) == CONDITIONS
    limits = [f"{getattr(Retention(), field.name):,.0f}" for field in fields(Retention)[:2]]
    assert all(limit in PAGE for limit in limits)
