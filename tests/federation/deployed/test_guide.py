"""The commands of the operator's guide are run as they stand, and the server's kit names what there is."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest
import typer
import yaml
from typer.testing import CliRunner

from fedpeft.cli.app import app
from fedpeft.federation.deployed import alerts, exposition
from fedpeft.federation.deployed.server_folder import Settings


def commands(guide: Path, kind: str) -> list[list[str]]:
    found = re.findall(rf"```{kind}\n(.*?)```", guide.read_text(), flags=re.DOTALL)
    return [shlex.split(line)[1:] for block in found for line in block.splitlines() if line.startswith("fedpeft ")]


def parsed(line: list[str]) -> None:
    """Refuse a line with a verb or an option that there is not."""
    group, verb, *rest = line
    root = typer.main.get_command(app)
    found = root.get_command(click.Context(root), group)
    command = found.get_command(click.Context(found), verb)
    command.make_context(verb, list(rest))


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
    verbs = ["up", "status", "status", "status", "status", "drain", "up"]
    assert [line[1] for line in listed if line[0] == "server"] == verbs
    assert [line[1] for line in listed if line[0] == "client"] == ["join"]
    for line in listed:
        parsed(line)


def test_the_guide_says_what_every_alert_means(repository: Path) -> None:
    guide = (repository / "docs" / "deploy.md").read_text()
    known = re.findall(r"^``(\w+)``", alerts.__doc__, flags=re.MULTILINE)
    assert (
        re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \|$", guide.split("| alert |")[1], flags=re.MULTILINE)[: len(known)]
        == known
    )


def test_the_guides_prometheus_files_are_yaml_and_name_metrics_that_exist(repository: Path) -> None:
    guide = (repository / "docs" / "deploy.md").read_text()
    scrape, rules = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", guide, flags=re.DOTALL))
    (job,) = scrape["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    assert Settings(metrics=target).metrics in guide.split("```yaml")[0]
    expressions = " ".join(rule["expr"] for group in rules["groups"] for rule in group["rules"])
    metrics = Path(exposition.__file__).read_text()
    assert all(name in metrics for name in re.findall(r"fedpeft_\w+", expressions))


def test_the_container_file_copies_and_runs_what_exists(repository: Path) -> None:
    lines = (repository / "server" / "Containerfile").read_text().replace("\\\n", " ").splitlines()
    by_kind = [(line.split()[0], line.split()[1:]) for line in lines if line and not line.startswith("#")]
    sources = [source for kind, words in by_kind if kind == "COPY" for source in words[:-1]]
    assert sources
    assert all((repository / source).exists() for source in sources)
    users = [words for kind, words in by_kind if kind == "USER"]
    assert users == [["10001"]]
    programs = {kind: json.loads(" ".join(words)) for kind, words in by_kind if kind in ("ENTRYPOINT", "CMD")}
    check = next(line for line in lines if line.startswith("HEALTHCHECK"))
    parsed([*programs["ENTRYPOINT"], *programs["CMD"]][1:])
    parsed(json.loads(check.partition(" CMD ")[2])[1:])
    extras = re.search(r"'/build\[(.*)\]'", "\n".join(lines))[1].split(",")
    assert (
        set(extras)
        <= tomllib.loads((repository / "pyproject.toml").read_text())["project"]["optional-dependencies"].keys()
    )


def test_the_service_runs_a_command_that_exists_and_is_not_restarted_where_that_mends_nothing(
    repository: Path,
) -> None:
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str
    unit.read_string((repository / "server" / "fedpeft.service").read_text())
    service = unit["Service"]
    parsed(shlex.split(service["ExecStart"])[1:])
    assert service["RestartPreventExitStatus"] == "1 2"
    assert service["ReadWritePaths"] in shlex.split(service["ExecStart"])


def test_the_proxy_lets_devices_through_to_fleet_gate_and_versions_only(repository: Path) -> None:
    text = re.sub(r"#.*", "", (repository / "server" / "nginx.conf").read_text())
    assert text.count("{") == text.count("}")
    found = dict(re.findall(r"location (\S+) {([^}]*)}", text))
    passed = {path: re.findall(r"proxy_pass (\S+);", body) for path, body in found.items()}
    gate = {path: ["https://127.0.0.1:8001"] for path in ("/gate/", "/versions/", "/blobs/")}
    assert passed == {"/v1/fleet/": ["https://127.0.0.1:8000"], **gate, "/": []}
    assert "return 404;" in found["/"]
    assert "proxy_ssl_verify on;" in text
