"""The quickstart, as it stands in the document: a gate, a server, three devices, each a process, over TLS on loopback."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.device.edge.conftest import persons_messages

PATIENCE = 600


def blocks(page: Path, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", page.read_text(), flags=re.DOTALL)


class Shell:
    """Runs the document's commands in forks of this process, which has loaded what takes long."""

    def __init__(self, folder: Path, ports: tuple[int, int]) -> None:
        self.folder, self._ports, self._running = folder, ports, {}

    def begin(self, line: str) -> str:
        """Begin a command and return its name."""
        words, source = shlex.split(line.removesuffix("&")), ""
        if "<" in words:
            source = (self.folder / words[words.index("<") + 1]).read_text()
            words = words[: words.index("<")]
        into = f"{len(self._running)}.log"
        if ">" in words:
            words, into = words[: words.index(">")], words[words.index(">") + 1]
        assert words[0] == "fedpeft"
        return self.fork(lambda: command([*words[1:], *self._changed(words[1:3])], source), into)

    def fork(self, work: Callable[[], None], into: str) -> str:
        process = get_context("fork").Process(target=self._run, args=(work, into))
        process.start()
        self._running[into] = process
        return into

    def end(self, name: str) -> str:
        """Wait for a command and return what it said."""
        process = self._running[name]
        process.join(PATIENCE)
        assert process.exitcode == 0, self.story()
        return (self.folder / name).read_text()

    def said(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""

    def story(self) -> str:
        logs = [*self.folder.glob("*.log"), *self.folder.glob("fed/flower/*.log")]
        return "\n".join(f"{path.name}: {path.read_text(errors='replace')[-1500:]}" for path in logs)

    def close(self) -> None:
        for process in self._running.values():
            if process.is_alive():
                os.kill(process.pid, signal.SIGTERM)
        for process in self._running.values():
            process.join(30)
            if process.is_alive():
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
                process.kill()

    def _changed(self, verb: list[str]) -> list[str]:
        """Return what is said besides, on a machine where other tests take ports too."""
        server, gate = self._ports
        return {
            ("server", "init"): ["--port", str(server)],
            ("server", "gate"): ["--port", str(gate)],
            ("server", "token"): ["--gate", f"127.0.0.1:{gate}"],
        }.get((verb[0], verb[1]), [])

    def _run(self, work: Callable[[], None], into: str) -> None:
        os.chdir(self.folder)
        with (self.folder / into).open("w", buffering=1) as out, redirect_stdout(out):
            work()


def command(words: list[str], source: str) -> None:
    import sys

    from fedpeft.cli.app import app

    sys.stdin = StringIO(source)
    app(words, standalone_mode=False)


def free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        for probe in (one, other):
            probe.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    import fedpeft.cli.client
    import fedpeft.federation.deployed.supervisor
    import fedpeft.federation.on_device
    import fedpeft.gate.app
    import fedpeft.personalization.on_device  # noqa: F401  (what forks need not import)

    made = Shell(tmp_path, free_ports())
    try:
        yield made
    finally:
        made.close()


def test_the_ten_lines_are_ten_and_the_readme_has_the_same(repository: Path) -> None:
    page, readme = repository / "docs" / "quickstart.md", (repository / "README.md").read_text()
    (example,) = blocks(page, "python")
    work = [line for line in example.splitlines() if line.strip() and not line.startswith(("from", "import"))]
    assert len(work) <= 10
    assert "\n".join(work) in readme
    _, ada, _ = blocks(page, "bash")
    assert len(ada.splitlines()) == 3
    assert all(f"$ {line}\n" in readme for line in ada.splitlines())


@pytest.mark.slow
def test_three_devices_enrol_join_and_suggest_as_the_document_says(repository: Path, shell: Shell) -> None:
    page = repository / "docs" / "quickstart.md"
    (scenario,), (example,) = blocks(page, "toml"), blocks(page, "python")
    operator, ada, cleo = (block.strip().splitlines() for block in blocks(page, "bash"))
    (shell.folder / "chat.toml").write_text(scenario)
    for name, person in (("ada", "user-02"), ("ben", "user-03"), ("cleo", "user-05")):
        own = [m.text.replace("\n", " ") for m in persons_messages(person, 300) if m.mine]
        (shell.folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in own))
        (shell.folder / f"{name}.txt").write_text("\n".join(own))
    background: list[Any] = []
    for line in operator:
        name = shell.begin(line)
        if line.endswith("&"):
            background.append(name)
        else:
            shell.end(name)
    gate, up = background
    port = shell._ports[1]
    end = time.monotonic() + PATIENCE
    while not listening(port):
        assert time.monotonic() < end, shell.story()
        time.sleep(0.1)
    assert "ada is enrolled in chat" in shell.end(shell.begin(ada[0]))
    assert "cleo is enrolled" in shell.end(shell.begin(cleo[0]))
    ben = shell.fork(lambda: exec(example, {}), "ben.log")
    joined, other = shell.begin(ada[1]), shell.begin(cleo[1])
    assert "is number 1 of stable" in shell.end(up), shell.story()
    said = shell.end(joined)
    assert "took part in 2 rounds" in said, shell.story()
    assert "the adapter of round 2 answers" in said
    assert re.search(r"learnt from \d+ messages", said)
    assert "took part in 2 rounds" in shell.end(other)
    assert re.match(r"2 rounds\n[\d.]+\n\['\w+", shell.end(ben)), shell.story()
    assert re.search(r"\w+ [\d.]+%", shell.end(shell.begin(ada[2])))
    adapters = [
        next((shell.folder / name / "federation" / "global").glob("*/adapter_model.safetensors"))
        for name in ("ada", "ben", "cleo")
    ]
    assert len({adapter.read_bytes() for adapter in adapters}) == 1
    (published,) = (shell.folder / "fed" / "shelf" / "versions").glob("[0-9a-f]" * 64)
    fetched = shell.end(shell.begin("fedpeft client fetch --home cleo"))
    assert published.name[:8] in fetched, fetched
    assert shell.said(gate) == ""
    assert not any(secret(shell, name) in shell.story() for name in ("ada", "ben", "cleo"))


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def secret(shell: Shell, name: str) -> str:
    return (shell.folder / f"{name}.token").read_text().strip()


def test_the_service_unit_runs_a_command_that_exists(repository: Path) -> None:
    import click
    import typer

    from fedpeft.cli.app import app

    unit = (repository / "client" / "fedpeft-client.service").read_text()
    (line,) = re.findall(r"^ExecStart=/\S+/fedpeft (.*)$", unit, flags=re.MULTILINE)
    group, verb, *rest = shlex.split(line)
    found = typer.main.get_command(app).get_command(click.Context(click.Group()), group)
    found.get_command(click.Context(found), verb).make_context(verb, rest)
    assert {"NoNewPrivileges=yes", "UMask=0077", "ProtectSystem=strict", "Restart=on-failure"} <= set(unit.splitlines())
