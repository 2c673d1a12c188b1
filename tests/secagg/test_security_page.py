"""What docs/security.md says is what the code does."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fedpeft.device.folders import TRUST
from fedpeft.federation.sessions import _SESSION
from fedpeft.federation.trust import IDENTITY, PINNED, Trust
from fedpeft.scenario import Scenario
from fedpeft.secagg import CHANNELS
from fedpeft.secagg.pairwise import STAGES
from fedpeft.secagg.pairwise.parameters import COMPLETE, SECURITY


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs" / "security.md").read_text()


def test_every_block_prints_what_stands_below_it(page: str) -> None:
    blocks = list(re.finditer(r"```python\n(.*?)```", page, re.DOTALL))
    assert len(blocks) == 3
    for block in blocks:
        done = subprocess.run([sys.executable, "-c", block[1]], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        below = page[block.end() :].split("\n## ", maxsplit=1)[0]
        assert done.stdout.strip() in below, done.stdout


def test_every_toml_block_is_a_scenario(page: str) -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    scenario = Scenario(name="mine", **tomllib.loads(block))
    assert not scenario.secure
    assert scenario.channel.name in CHANNELS


def test_the_numbers_in_the_text_are_the_codes(page: str) -> None:
    channel = Scenario(name="mine").channel
    assert f"corrupt, dropout = {channel.corrupt}, {channel.dropout}" in page
    assert f"everybody up to {COMPLETE} clients" in page
    assert SECURITY == 80
    assert "but for 2⁻⁸⁰" in page
    for stage in STAGES:
        assert re.search(rf"^{stage}", page, re.MULTILINE), stage


def test_every_file_that_is_named_exists(page: str, repository: Path) -> None:
    named = set(re.findall(r"`((?:fedpeft|tests)/[\w/.]+)`", page))
    assert len(named) >= 3
    attacks = repository / "tests" / "secagg" / "attacks"
    named |= {f"tests/secagg/attacks/{name}" for name in re.findall(r"`(test_\w+\.py)`", page)}
    assert [name for name in named if not (repository / name).exists()] == []
    # And no attack is left out of the table.
    assert {path.name for path in attacks.glob("test_*.py")} == set(re.findall(r"`(test_\w+\.py)`", page))


def test_keys_lie_where_the_page_says(page: str, tmp_path: Path) -> None:
    trust = Trust(tmp_path)
    trust.enrol(["ada"], tmp_path / "clients")
    found = {path.name for path in (tmp_path / TRUST).iterdir()} - {PINNED}
    assert found == {f"{name}.pem" for name in ("authority", "operator", "server")}
    for name in found:
        assert f"`{TRUST}/{name}`" in page
    assert (tmp_path / "clients" / "ada" / IDENTITY / "identity.pem").exists()
    assert f"`clients/NAME/{IDENTITY}/`" in page
    assert f"`clients/NAME/{_SESSION}/`" in page


def test_the_actions_that_the_page_warns_of_are_the_ones_that_answer_in_the_clear(page: str, repository: Path) -> None:
    source = (repository / "fedpeft" / "federation" / "client.py").read_text()
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    clear = {node.name for node in functions if "json.dumps" in ast.unparse(node) and node.name != "client_app"}
    assert clear == {"personalize", "stranger"}
    assert "`train.personalize`" in page
    assert "`evaluate.stranger`" in page
