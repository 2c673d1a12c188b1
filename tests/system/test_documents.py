"""What the documents say is what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fedpeft.scenario.reference import reference


def blocks(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("name", ["README.md", "docs/data.md", "docs/export.md"])
def test_every_python_block_runs(name: str, repository: Path, tmp_path: Path) -> None:
    found = blocks(repository / name)
    assert found
    (tmp_path / "simulations").symlink_to(repository / "simulations")
    for block in found:
        done = subprocess.run(
            [sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr


def test_the_readmes_python_example_has_at_most_ten_lines_of_work(repository: Path) -> None:
    (example,) = blocks(repository / "README.md")
    work = [line for line in example.splitlines() if line.strip() and not line.startswith(("from", "import"))]
    assert len(work) <= 10


def test_the_scenario_reference_is_the_one_the_code_writes(repository: Path) -> None:
    written = (repository / "docs" / "scenario.md").read_text()
    assert written == reference(), "python -m fedpeft.scenario.reference > docs/scenario.md"


def test_every_link_of_the_readme_leads_to_a_file(repository: Path) -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#]+)\)", (repository / "README.md").read_text())
    assert targets
    assert [target for target in targets if not (repository / target).exists()] == []


def test_ci_runs_exactly_the_readmes_test_command(repository: Path) -> None:
    assert "make test" in (repository / ".ci" / "run").read_text().splitlines()
    assert "$ make test" in (repository / "README.md").read_text()
