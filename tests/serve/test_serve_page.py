"""What docs/serve.md says is what the service does."""

import re
import subprocess
import sys

import click
import pytest
import typer

from fedpeft.cli.serve import serve
from fedpeft.serve.app import Api
from fedpeft.serve.limits import Limits
from fedpeft.serve.schema import ChatRequest, CompletionRequest


@pytest.fixture(scope="module")
def page(repository) -> str:
    return (repository / "docs" / "serve.md").read_text()


def test_the_example_runs_against_a_service(page, served, tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for written, meant in (
        ("http://127.0.0.1:8000", served.url),
        ("fp-3b78a3b7fb0c-0JWV…", served.tokens["person00"]),
        ('"ada"', '"person00"'),
    ):
        assert written in example
        example = example.replace(written, meant)
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_endpoints_are_all_there_are(page, served):
    listed = re.findall(r"^\| `(GET|POST) (\S+)` \|", page, re.MULTILINE)
    routes = [(method, route.path) for route in Api(served.service).app().routes for method in sorted(route.methods)]
    assert sorted(listed) == sorted(route for route in routes if route[0] != "HEAD")


def test_the_limits_are_the_commands_own(page):
    listed = dict(re.findall(r"^\| `--([a-z-]+)` \| (\d+) \|", page, re.MULTILINE))
    command = typer.main.get_command(serve)
    assert isinstance(command, click.Group)
    defaults = {option.opts[0].removeprefix("--"): option.default for option in command.params}
    assert {name: float(value) for name, value in listed.items()} == {name: defaults[name] for name in listed}
    assert set(listed) == {"slots", "queue", "per-user", "tokens", "context", "timeout", "drain"}
    limits = Limits()
    assert [limits.slots, limits.queue, limits.per_user, limits.tokens, limits.context] == [8, 128, 4, 256, 2048]
    assert limits.body_bytes == 64 << 10


def test_every_command_on_the_page_exists_with_its_options(page):
    group = typer.main.get_command(serve)
    lines = re.findall(r"^\$ fedpeft serve (.+)$", page, re.MULTILINE)
    assert len(lines) >= 6
    for line in lines:
        words, command = line.split(), group
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        known = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


def test_the_fields_and_defaults_named_are_the_services(page):
    said = set(re.findall(r"`([a-z_]+)`", page))
    for form in (CompletionRequest, ChatRequest):
        for field in ("temperature", "top_p", "stop", "seed", "stream", "top_k", "repetition_penalty", "max_tokens"):
            assert field in said
            assert field in form.model_fields
    assert CompletionRequest.model_fields["temperature"].default == 1
    assert CompletionRequest.model_fields["max_tokens"].default == 16
