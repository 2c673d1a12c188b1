"""After the rounds of a real federation nothing is opened of what people gained but the sum."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict

from fedpeft.errors import ProtocolError, RunError
from fedpeft.federation.client import client_app, node_config_of, worker_at
from fedpeft.federation.cohort import roll_call
from fedpeft.federation.folder import RunFolder
from fedpeft.federation.grid import InProcessGrid
from fedpeft.federation.handshake import begin_session
from fedpeft.federation.people import PEOPLE_SUM, require_summable, sum_people
from fedpeft.federation.personal import keep_own, people_codec, score_kept
from fedpeft.federation.rounds import Rounds
from fedpeft.federation.server import agreed, federate, simulated_keys
from fedpeft.federation.watcher import Silent
from fedpeft.federation.worker import Device, Worker
from fedpeft.methods.attached import SHARED
from fedpeft.scenario import Scenario, parse_scenario

from .conftest import TINY


@pytest.fixture
def tiny(tmp_path: Path) -> Scenario:
    """Return a scenario of one round, after which all four personalize; they have little text, which is soon scored."""
    texts = tmp_path / "texts"
    texts.mkdir()
    for person in range(4):
        lines = [{"text": f"person {person} goes to the market on day {day % 5} at noon"} for day in range(15)]
        (texts / f"person-{person}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    overrides = ["federation.rounds=1", "personalization.people=4", "federation.panel=0"]
    return parse_scenario({**TINY, "data": {"federation": str(texts), "window": 32}}, overrides)


def rounds_of(worker: Worker, folder: RunFolder, config: dict[str, str], mods=()) -> Rounds:
    """Open a session as a real server does."""
    grid = InProcessGrid(client_app(mods), 4, config)
    roll = roll_call(grid, 4, agreed(worker))
    keys = replace(simulated_keys(worker, roll, folder), people=True)
    end, roll = begin_session(grid, worker, roll, keys, folder.path.name, Silent())
    return Rounds(grid, worker, roll, end, folder, Silent())


def test_the_server_writes_what_the_sum_says_and_devices_keep_the_rest(
    worker: Worker, folder: RunFolder, config: dict[str, str]
) -> None:
    rounds = rounds_of(worker, folder, config)
    change = federate(rounds, sum_people)
    found = json.loads((folder.path / PEOPLE_SUM).read_text())
    assert (found["asked"], found["people"], found["failures"]) == (4, 4, {})
    scores = [score_kept(worker, c, worker.attached.initial[SHARED] + change) for c in worker.client_ids]
    for control, metrics in found["test"].items():
        pieces = sum(score[control]["tokens"] for score in scores)
        assert metrics["tokens"] == pieces
        loss = sum(score[control]["loss"] * score[control]["tokens"] for score in scores) / pieces
        assert metrics["loss"] == pytest.approx(loss, rel=1e-4)
    assert found["better"] == sum(score["personal"]["loss"] < score["global"]["loss"] for score in scores)
    for client in worker.client_ids:
        assert (worker.states / client / "personal" / "adapter_model.safetensors").exists()
        # Asked again, by a server that was killed, a device answers from its folder.
        again = keep_own(
            worker, client, change, json.loads((worker.states / client / "scores.json").read_text())["key"]["model"]
        )
        assert again.shape == (people_codec(worker).length,)
    assert not (folder.path / "people.jsonl").exists()


def test_too_few_people_leave_the_run_without_scores_and_otherwise_whole(
    worker: Worker, folder: RunFolder, config: dict[str, str]
) -> None:
    def no_battery(message: Message, context: Context, call_next) -> Message:
        if message.metadata.message_type == "train.keep" and context.node_config["partition-id"] > 1:
            raise RuntimeError("battery empty")
        return call_next(message, context)

    federate(rounds_of(worker, folder, config, [no_battery]), sum_people)
    found = json.loads((folder.path / PEOPLE_SUM).read_text())
    assert "at least 3" in found["unscored"]
    assert len(found["failures"]) == 2
    assert (folder.path / "adapters" / "global").exists()


def test_a_device_tells_no_server_its_own_scores(
    worker: Worker, folder: RunFolder, config: dict[str, str], tmp_path: Path
) -> None:
    rounds = rounds_of(worker, folder, config)
    client = worker.client_ids[0]
    device = Device(client, worker.states / client / "identity", folder.path / "trust" / "pinned.json")
    change = np.zeros(worker.size, np.float32)
    plan = rounds.plan(2, change)
    context = Context(1, 2, dict(node_config_of(device)), RecordDict(), dict(config))
    for kind, extra in (("train.personalize", {}), ("evaluate.stranger", {"other": worker.client_ids[1]})):
        message = Message(rounds.request(plan, change, extra), 2, kind)
        message.metadata.__dict__["_message_id"] = "m"
        with pytest.raises(ProtocolError, match="only a simulation reads scores"):
            client_app()(message, context)
    worker_at(*config.values())


@pytest.mark.parametrize("people", [1, 2, 3])
def test_so_few_people_that_a_sum_would_tell_one_of_them_are_refused(people: int) -> None:
    with pytest.raises(RunError, match=f"personalization.people: found {people}"):
        require_summable(parse_scenario(TINY, [f"personalization.people={people}"]))


def test_devices_with_a_store_of_their_own_are_not_asked_to_personalize() -> None:
    own = parse_scenario({**TINY, "data": {"federation": "enrolled", "window": 32}})
    with pytest.raises(RunError, match="fedpeft client personalize"):
        require_summable(own)
    require_summable(parse_scenario({**TINY, "data": {"federation": "enrolled"}}, ["personalization.people=0"]))


def test_no_people_or_enough_of_them_are_welcome() -> None:
    for people in (0, 4, 20):
        require_summable(parse_scenario(TINY, [f"personalization.people={people}"]))
