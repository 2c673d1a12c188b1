"""What docs/web.md says is what the code does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fedpeft.web.server import POLICY
from fedpeft.web.site import Weights

LARGEST_PICTURE = 150_000


@pytest.fixture(scope="module")
def document(repository: Path) -> str:
    return (repository / "docs" / "web.md").read_text()


def test_the_python_block_runs_on_a_finished_run(document: str, run: Path, tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", document, re.DOTALL)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(run)
    done = subprocess.run(
        [sys.executable, "-c", block.replace('["global"]', '["ada"]')],
        cwd=tmp_path,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "True"


def test_policy_weights_and_keys_in_the_text_are_the_codes(document: str, repository: Path) -> None:
    assert POLICY in document
    page = (repository / "client" / "web" / "index.html").read_text()
    assert POLICY.removesuffix("; frame-ancestors 'none'") in page
    for weights in Weights.__args__:
        assert weights in document
    for key in re.findall(r"`(Tab|Alt|Ctrl|Enter|Esc)`", document):
        assert f"<kbd>{key}</kbd>" in page


def test_the_pictures_exist_and_are_small(document: str, repository: Path) -> None:
    named = set(re.findall(r"\]\((images/[\w-]+\.png)", document))
    assert len(named) == 4
    for name in named:
        assert (repository / "docs" / name).stat().st_size < LARGEST_PICTURE
