"""Why a ServerApp ended decides what its supervisor does: try again later, or end with that one line."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path

import pytest
from flwr.app import Context, RecordDict
from typer.testing import CliRunner

from fedpeft.cli.server import server as server_verbs
from fedpeft.errors import (
    BaseError,
    FedpeftError,
    FolderError,
    LinkError,
    MessageGone,
    ProtocolError,
    RoundBurnt,
    RunError,
    ScenarioError,
    VersionError,
)
from fedpeft.federation.deployed.drain import Drain, Drained, UntilDrained
from fedpeft.federation.deployed.ending import Ending, told
from fedpeft.federation.deployed.programs import leftovers, running
from fedpeft.federation.deployed.server_folder import ServerFolder
from fedpeft.federation.deployed.serverapp import OPERATOR_FOLDER, RUN_FOLDER, SERVER_FOLDER, deployed_app
from fedpeft.federation.deployed.supervisor import Outcome, Supervisor
from fedpeft.federation.flower_internals import require_flower
from fedpeft.federation.folder import METRICS, RUN, SCENARIO, RunFolder
from fedpeft.scenario import Scenario, parse_scenario

from ..conftest import TINY
from .federation import Up, found, until

NUMBER = 7


@pytest.fixture
def server(tmp_path: Path) -> ServerFolder:
    return found(tmp_path / "fed")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def supervisor(server: ServerFolder, tiny: Scenario, said: list[str]) -> Supervisor:
    """Return a supervisor that has submitted its run."""
    made = Supervisor(server, tiny, server.path / "operator", said.append)
    made._submission.number, made._submitted = NUMBER, time.monotonic()
    return made


def begin(server: ServerFolder, run: RunFolder, operator: Path) -> None:
    """Begin a ServerApp as Flower does; it must not get as far as to use its Grid."""
    config = {SERVER_FOLDER: str(server.path), RUN_FOLDER: str(run.path), OPERATOR_FOLDER: str(operator)}
    deployed_app()(None, Context(NUMBER, 0, {}, RecordDict(), config))


@pytest.mark.parametrize(
    ("error", "permanent"),
    [
        (ScenarioError("x", 1, "y"), True),
        (BaseError("x", 1, "y"), True),
        (ProtocolError("x", 1, "y"), True),
        (FolderError("x", 1, "y"), True),
        (VersionError("x", 1, "y"), True),
        (RunError("x", 1, "y"), False),
        (LinkError("x", 1, "y"), False),
        (MessageGone("x", 1, "y"), False),
        (RoundBurnt("x", 1, "y"), False),
        (OSError(28, "No space left on device"), False),
    ],
)
def test_what_time_may_mend_is_told_from_what_it_cannot(error: Exception, permanent: bool, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with pytest.raises(type(error)), told(run, NUMBER):
        raise error
    ending = Ending.read(run)
    assert (ending.submission, ending.permanent) == (NUMBER, permanent)
    assert str(error) in ending.reason
    with told(run, 8):
        raise Drained("run", "a drain", "none")
    assert Ending.read(run) == Ending(8)
    (tmp_path / "ending.json").write_text("[]")
    assert Ending.read(run) is None


def test_another_flower_is_no_passing_trouble() -> None:
    with pytest.raises(VersionError) as error:
        require_flower("1.42.0")
    assert error.value.permanent


def test_a_serverapp_without_the_operators_key_ends_its_supervisor_with_one_line(
    server: ServerFolder, supervisor: Supervisor, tmp_path: Path
) -> None:
    with pytest.raises(ProtocolError):
        begin(server, supervisor.run_folder, tmp_path / "no-such-stick")
    assert supervisor._ended() is None
    supervisor._drive(None, True)
    assert supervisor._ended() is Outcome.FAILED
    assert "no-such-stick" in supervisor.failure
    assert "\n" not in supervisor.failure
    found = CliRunner().invoke(server_verbs, ["status", str(server.path)]).stdout
    assert "alert: failed: run tiny ended: key file" in found


def test_a_serverapp_whose_base_cannot_be_loaded_ends_its_supervisor(server: ServerFolder, tmp_path: Path) -> None:
    scenario = parse_scenario({**TINY, "base": {"name": str(tmp_path / "nowhere")}})
    run = RunFolder(server.run("tiny"))
    run.write(SCENARIO, scenario.model_dump(mode="json"))
    with pytest.raises(BaseError):
        begin(server, run, server.path / "operator")
    assert Ending.read(run).permanent


def test_a_run_does_not_go_on_with_another_base_than_it_began_with(server: ServerFolder, tiny: Scenario) -> None:
    run = RunFolder(server.run("tiny"))
    run.write(SCENARIO, tiny.model_dump(mode="json"))
    run.write(RUN, {"base": {"fingerprint": "0" * 64}})
    with pytest.raises(FolderError, match="expected 000000000000, with which it began"):
        begin(server, run, server.path / "operator")
    assert Ending.read(run).permanent


def test_what_may_mend_itself_is_tried_again_after_a_while(supervisor: Supervisor, said: list[str]) -> None:
    with pytest.raises(RunError), told(supervisor.run_folder, NUMBER):
        raise RunError("nodes", 2, "at least 3, one per client")
    supervisor._drive(None, True)
    assert supervisor._ended() is None
    assert said == ["the ServerApp is gone (nodes: found 2, expected at least 3, one per client); the run is resumed"]
    assert supervisor._not_before > time.monotonic() - 1


def test_an_ending_of_an_earlier_submission_says_nothing(supervisor: Supervisor, said: list[str]) -> None:
    with pytest.raises(FedpeftError), told(supervisor.run_folder, NUMBER - 1):
        raise BaseError("base", "x", "y")
    supervisor._drive(None, True)
    assert (supervisor._ended(), said, supervisor.failure) == (None, [], "")


def test_a_drain_is_heeded_between_rounds_and_before_the_first_but_not_after_the_last(server: ServerFolder) -> None:
    drain = Drain(server.path)
    watcher = UntilDrained(drain)
    watcher.round({"round": 1}, 3)
    drain.ask()
    watcher.stage("round 2", 1, 4)
    watcher.round({"round": 3}, 3)
    with pytest.raises(Drained):
        watcher.round({"round": 2}, 3)
    with pytest.raises(Drained):
        watcher.stage("keys", 1, 4)
    drain.clear()
    watcher.stage("keys", 1, 4)


def test_a_drained_run_ends_the_supervisor_which_says_how_far_it_is(
    server: ServerFolder, supervisor: Supervisor, said: list[str]
) -> None:
    Drain(server.path).ask()
    supervisor.run_folder.write_lines(METRICS, [{"round": 0}, {"round": 1, "contributors": 4}])
    with supervisor.run_folder.lock():
        assert supervisor._ended() is None  # the round in progress
    assert supervisor._ended() is Outcome.DRAINED
    assert said[-1] == "run tiny is drained after round 1; `fedpeft server up` goes on with the next"


def test_nothing_is_drained_where_nothing_runs(server: ServerFolder) -> None:
    result = CliRunner().invoke(server_verbs, ["drain", str(server.path)])
    assert isinstance(result.exception, RunError)
    assert "'not running'" in str(result.exception)
    assert not Drain(server.path).asked


def test_a_port_that_somebody_else_has_is_refused_before_anything_is_started(
    server: ServerFolder, tiny: Scenario
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", server.settings.port))
        other.listen()
        with pytest.raises(RunError, match="Address already in use"):
            Supervisor(server, tiny, server.path / "operator").run()


def test_without_room_nothing_is_submitted_and_one_line_says_so(
    supervisor: Supervisor, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedpeft.federation.deployed.supervisor.LEAST_ROOM", 1 << 62)
    assert [supervisor._room() for _ in range(3)] == [False] * 3
    assert len(said) == 1
    assert "nothing new begins before there is room" in said[0]
    monkeypatch.setattr("fedpeft.federation.deployed.supervisor.LEAST_ROOM", 0)
    assert supervisor._room()
    assert said[-1] == "disk: there is room again"


def test_a_folder_that_was_restored_without_flowers_gets_a_new_secret(server: ServerFolder, tiny: Scenario) -> None:
    server.secret.unlink()
    Supervisor(server, tiny, server.path / "operator")
    assert server.secret.stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_a_second_signal_waits_for_nothing_and_leaves_no_process(
    server: ServerFolder, tiny: Scenario, tmp_path: Path
) -> None:
    file = tmp_path / "scenario.json"
    file.write_text(tiny.model_dump_json())
    up = Up(server, file)
    until(lambda: running(server.flower).keys() == {"superlink", "superexec"}, 60, lambda: up.said)
    for _ in range(3):
        up.process.send_signal(signal.SIGTERM)
    assert up.end(30) in (0, -signal.SIGTERM)
    assert leftovers(server.flower) == []
