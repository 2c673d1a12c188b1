"""The page about devices shows code that runs, and names what there is."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "device.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize("block", range(len(BLOCKS)))
def test_every_block_runs_beside_a_run(run, tmp_path, block):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").mkdir()
    for name in ("device", "run.json"):
        (tmp_path / "runs" / "demo" / name).symlink_to(run / name)
    done = subprocess.run(
        [sys.executable, "-c", BLOCKS[block]], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_table_names_the_figures_of_the_benchmark():
    source = (Path(__file__).parents[2] / "fedpeft" / "bench" / "device.py").read_text()
    named = set(re.findall(r"^\| `(\w+)`(?:, `(\w+)`)?", PAGE.split("## Figures")[1], flags=re.MULTILINE))
    assert len(named) == 9
    assert all(f'"{name}"' in source for pair in named for name in pair if name)
