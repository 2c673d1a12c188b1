"""From a run to a device: what is published is what the run has, and the page's commands do it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer
from typer.testing import CliRunner

from fedpeft.adapters import Adapter
from fedpeft.cli.app import app
from fedpeft.device.bundle import Bundle
from fedpeft.device.versions.fetch import fetch
from fedpeft.device.versions.installed import Installed
from fedpeft.device.versions.source import FolderSource
from fedpeft.errors import RunError
from fedpeft.registry.publish import publish_run
from fedpeft.registry.publisher import Publisher
from tests.device.versions.network import served
from tests.registry.bundles import KEY


def said(*arguments: str) -> dict:
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, (arguments, done.output, done.exception)
    return json.loads(done.stdout)


def test_a_runs_adapter_reaches_a_device_with_its_scores_and_signed_by_the_shelfs_key(finished, tmp_path):
    shelf = Publisher(tmp_path / "shelf", "chat", KEY)
    version, head = publish_run(finished, shelf)
    assert (version.run, version.round, version.metrics) == ("demo", 2, {"top3": 0.4, "loss": 3.0})
    assert version.scenario == json.loads((finished / "run.json").read_text())["scenario"]
    assert version.privacy == {"mechanism": "none"}
    assert publish_run(finished, shelf) == (version, head)
    assert not (finished / "device").exists()  # the run is only read
    assert not (finished / "trust").exists()

    fetch(FolderSource(shelf.folder), shelf.trust, installed := Installed(tmp_path / "me"))
    pair = installed.current()
    original = Adapter.load(finished / "adapters" / "global")
    assert (Adapter.load(pair.adapter).vector == original.vector).all()
    assert Bundle.open(pair.base, "base", shelf.trust.signers).manifest.name == "keyboard"


def test_the_next_version_of_a_run_takes_the_base_that_is_there(finished, tmp_path, monkeypatch):
    shelf = Publisher(tmp_path / "shelf", "chat", KEY)
    first, _ = publish_run(finished, shelf)
    later = shutil.copytree(finished, tmp_path / "later")
    adapter = Adapter.load(later / "adapters" / "global")
    shutil.rmtree(later / "adapters")
    Adapter(adapter.schema, adapter.vector * 2, adapter.config, adapter.base).save(later / "adapters" / "global")
    monkeypatch.setattr("fedpeft.export.run.export_base", None)
    second, head = publish_run(later, shelf)
    assert second.bundles.base == first.bundles.base
    assert second.bundles.adapter != first.bundles.adapter
    assert (second.parent, head.number) == (first.id, 2)


def test_a_run_whose_rounds_are_not_over_or_whose_record_is_damaged_is_not_published(finished, tmp_path):
    shelf = Publisher(tmp_path / "shelf", "chat", KEY)
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "metrics.jsonl").write_text("{")
    with pytest.raises(RunError, match=r"metrics\.jsonl"):
        publish_run(run, shelf)
    (run / "metrics.jsonl").unlink()
    (run / "run.json").write_text("{}")
    with pytest.raises(RunError, match="digest"):
        publish_run(run, shelf)
    shutil.rmtree(run / "adapters")
    with pytest.raises(RunError, match="rounds are not over"):
        publish_run(run, shelf)
    assert shelf.versions() == []


PAGE = (Path(__file__).parents[2] / "docs" / "registry.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, flags=re.DOTALL)


def lines(kind: str) -> list[list[str]]:
    return [
        shlex.split(line)[1:] for block in blocks(kind) for line in block.splitlines() if line.startswith("fedpeft ")
    ]


def test_the_pages_commands_and_programs_run_as_they_stand(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(finished.parent)
    for line in lines("bash"):
        done = CliRunner().invoke(app, line)
        assert done.exit_code == 0, (line, done.output, done.exception)
    (version,) = said("registry", "list", "shelf")["versions"]
    assert version["head_of"] == "stable 1"
    assert said("registry", "show", "shelf", version["version"][:8])["base_name"] == "keyboard"
    assert said("adapters", "list", "--shelf", "shelf")["versions"][0]["version"] == version["version"]
    assert said("client", "fetch", "--home", "me", "--from", "shelf", "--pinned", "shelf/pinned.json")["bytes"] == 0
    for block in blocks("python"):
        done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


def test_the_pages_other_commands_have_options_that_exist():
    root = typer.main.get_command(app)
    for group, verb, *rest in lines("text"):
        found = root.get_command(click.Context(root), group)
        found.get_command(click.Context(found), verb).make_context(verb, list(rest))


def test_the_command_line_goes_back_verifies_and_tidies_up(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shelf = str(tmp_path / "shelf")
    first = said("registry", "publish", str(finished), "--to", shelf)
    later = shutil.copytree(finished, tmp_path / "later")
    (later / "metrics.jsonl").write_text('{"round": 3, "validation": {"top3": 0.5}}\n')
    second = said("registry", "publish", str(later), "--to", shelf)
    assert (first["number"], second["number"]) == (1, 2)
    back = said("registry", "rollback", shelf)
    assert (back["number"], back["version"]) == (3, first["version"])
    assert said("registry", "rollback", shelf, "--to-version", second["version"][:10])["number"] == 4
    assert said("registry", "verify", shelf)["wrong"] == {}
    assert said("registry", "gc", shelf, "--keep", "1")["versions removed"] == 1
    assert said("registry", "verify", shelf)["wrong"] == {}
    for path in (tmp_path / "shelf" / "blobs").iterdir():
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for command in (["registry", "verify", shelf], ["adapters", "verify", "--shelf", shelf]):
        done = CliRunner().invoke(app, [*command, "--json"])
        assert done.exit_code == 1
        assert "model.onnx.data of the base" in done.stdout


def test_adapters_on_a_server_are_listed_and_verified_only_for_who_says_whom_they_believe(finished, tmp_path):
    shelf = Publisher(tmp_path / "shelf", "chat", KEY)
    version, _ = publish_run(finished, shelf)
    with served(shelf.folder, tmp_path / "tls") as server:
        believed = ["--shelf", server.url, "--ca", str(server.ca), "--pinned", str(shelf.folder / "pinned.json")]
        assert said("adapters", "show", version.id[:9], *believed)["round"] == 2
        assert said("adapters", "verify", *believed)["wrong"] == {}
        done = CliRunner().invoke(app, ["adapters", "list", *believed[:4]])
        assert "--pinned" in str(done.exception)
