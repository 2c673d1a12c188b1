"""One federation through an operator's bad weeks: each test is a chapter, the run goes on from one to the next.

`fedpeft server up` is a process of its own here, as it is for an operator; five devices answer it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from fedpeft.cli.server import server as server_verbs
from fedpeft.federation.client import worker_at
from fedpeft.federation.deployed.programs import leftovers, running
from fedpeft.federation.deployed.server_folder import ServerFolder
from fedpeft.federation.deployed.status import healthy, status_of
from fedpeft.federation.folder import METRICS, SCENARIO, RunFolder
from fedpeft.secagg.trust import Revocations
from fedpeft.secagg.trust.registry import Registry

from .federation import CLIENTS, Node, Up, enrol, found, free_port, scenario_of, until

pytestmark = pytest.mark.slow

ROUNDS, PATIENCE = 14, 200
HOUR = 3600.0


class World:
    """A server, its devices, and the `up` that runs now."""

    def __init__(self, folder: Path) -> None:
        self.server = found(folder / "server")
        settings = self.server.path / "server.toml"
        text = settings.read_text().replace("deadline = 600.0", "deadline = 90.0")
        self.metrics = f"127.0.0.1:{free_port()}"
        settings.write_text(text.replace('metrics = ""', f'metrics = "{self.metrics}"'))
        self.server = ServerFolder(self.server.path)
        scenario = scenario_of(ROUNDS)
        reference = RunFolder(folder / "reference")
        reference.write(SCENARIO, scenario.model_dump(mode="json"))
        self.scenario = reference.path / SCENARIO
        self.clients = worker_at(str(self.scenario), str(reference.path)).client_ids
        self.nodes = {}
        for client in self.clients:
            enrol(self.server, client, folder / f"{client}-me")
            self.nodes[client] = Node(self.server, self.scenario, folder / client, folder / f"{client}-me")
        self.run = RunFolder(self.server.run(scenario.name))
        self.folder, self.up = folder, None

    def start(self, ahead: float = 0.0) -> Up:
        self.up = Up(self.server, self.scenario, ahead)
        return self.up

    @property
    def rows(self) -> list[dict]:
        return self.run.lines(METRICS)

    def wait_for_round(self, number: int) -> None:
        until(lambda: len(self.rows) > number, PATIENCE, self.story)

    def wait_to_hear(self, line: str) -> None:
        until(lambda: line in self.up.said, PATIENCE, self.story)

    def story(self) -> str:
        logs = [path.read_text(errors="replace")[-3000:] for path in self.server.flower.glob("*.log")]
        return "\n".join([self.up.said, *(node.log[-1000:] for node in self.nodes.values()), *logs])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("world"))
    for node in made.nodes.values():
        node.start()  # forked before there are threads
    made.start()
    try:
        yield made
    finally:
        if made.up.process.poll() is None:
            made.up.process.terminate()
            made.up.process.wait(60)
        for node in made.nodes.values():
            node.stop()
        assert leftovers(made.server.flower) == []


def test_when_the_server_itself_is_killed_the_next_one_ends_what_is_left_and_no_finished_round_changes(
    world: World,
) -> None:
    world.wait_for_round(1)
    world.up.kill()
    kept, left = json.dumps(world.rows), running(world.server.flower)
    assert left.keys() == {"superlink", "superexec"}
    world.start(ahead=HOUR)
    world.wait_to_hear("processes were left behind; they were ended")
    world.wait_for_round(2)
    assert json.dumps(world.rows[: len(json.loads(kept))]) == kept
    assert not set(left.values()) & set(running(world.server.flower).values())


def test_with_a_clock_that_is_an_hour_ahead_rounds_have_all_their_clients(world: World) -> None:
    sessions = world.server.path / "sessions"
    until(lambda: int(sessions.read_text()) > time.time() + HOUR - 600, PATIENCE, world.story)
    # To that clock every device has long been silent; each is there again with its next heartbeat.
    before = len(world.rows)
    until(lambda: any(row["contributors"] == CLIENTS for row in world.rows[before:]), PATIENCE, world.story)


def test_while_it_runs_prometheus_hears_what_status_says(world: World) -> None:
    status = status_of(world.server)
    assert healthy(status), status
    assert (status["clients"]["enrolled"], status["clients"]["online"]) == (CLIENTS, CLIENTS)
    with urlopen(f"http://{world.metrics}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    values = {(sample.name, *sorted(sample.labels.values())): sample.value for sample in samples}
    assert (values["fedpeft_server_up",], values["fedpeft_clients", "online"]) == (1, CLIENTS)
    assert values["fedpeft_run_working", "loopback"] == 1


def test_a_client_that_is_revoked_is_shut_out_within_seconds_and_in_no_round_after(world: World) -> None:
    gone = world.clients[1]
    Registry(world.server.registry).revoke(gone)
    begun = time.monotonic()
    world.wait_to_hear("is not admitted any more")
    assert time.monotonic() - begun < 10
    known = len(world.rows)
    world.wait_for_round(known + 1)  # one may have been under way
    assert gone not in world.rows[known + 1]["cohort"]
    until(lambda: "HTTP 40" in world.nodes[gone].log, 60, world.story)


def test_a_drain_ends_after_the_round_and_the_next_server_goes_on_with_the_next(world: World) -> None:
    verb = ["drain", str(world.server.path)]
    assert CliRunner().invoke(server_verbs, [*verb, "--wait"]).exit_code == 0
    assert world.up.end(30) == 0, world.story()
    done = len(world.rows) - 1
    assert f"is drained after round {done}; `fedpeft server up` goes on with the next" in world.up.said
    assert leftovers(world.server.flower) == []
    assert status_of(world.server)["runs"][0]["status"] == "drained"
    assert "'not running'" in str(CliRunner().invoke(server_verbs, verb).exception)
    kept = json.dumps(world.rows)
    world.start()
    world.wait_for_round(done + 1)
    assert json.dumps(world.rows[: done + 1]) == kept
    last = world.rows[done + 1]
    assert world.clients[1] not in last["cohort"]
    lists = {client: world.folder / client / "clients" / client / "session" / "revoked" for client in world.nodes}
    versions = {c: Revocations.from_bytes(path.read_bytes()).version for c, path in lists.items() if path.exists()}
    assert versions == dict.fromkeys(set(world.clients) - {world.clients[1]}, 1)


def test_after_all_that_every_round_was_run_once(world: World) -> None:
    assert world.up.end(PATIENCE) == 0, world.story()
    assert [row["round"] for row in world.rows] == list(range(ROUNDS + 1))
    assert "is finished" in world.up.said
    assert status_of(world.server)["runs"][0]["status"] == "finished"
