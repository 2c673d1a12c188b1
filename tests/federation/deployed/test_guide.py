"""The commands of the operator's guide are run as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import typer
from typer.testing import CliRunner

from fedpeft.cli.app import app


def commands(guide: Path, kind: str) -> list[list[str]]:
    found = re.findall(rf"```{kind}\n(.*?)```", guide.read_text(), flags=re.DOTALL)
    return [shlex.split(line)[1:] for block in found for line in block.splitlines() if line.startswith("fedpeft ")]


def test_the_guides_enrolment_works_as_it_stands(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    listed = commands(repository / "docs" / "deploy.md", "bash")
    assert [line[:2] for line in listed] == [
        ["server", "init"],
        ["client", "request"],
        ["server", "enrol"],
        ["client", "accept"],
    ]
    for line in [*listed, ["server", "status", "fed", "--json"]]:
        result = CliRunner().invoke(app, line)
        assert result.exit_code == 0, (line, result.output, result.exception)
    assert '"enrolled": 1' in result.output


def test_the_guides_other_commands_have_options_that_exist(repository: Path) -> None:
    listed = commands(repository / "docs" / "deploy.md", "text")
    assert [line[:2] for line in listed] == [["server", "up"], ["client", "join"]]
    root = typer.main.get_command(app)
    for group, verb, *rest in listed:
        found = root.get_command(click.Context(root), group)
        command = found.get_command(click.Context(found), verb)
        command.make_context(verb, list(rest))
