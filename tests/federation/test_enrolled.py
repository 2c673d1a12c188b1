"""A device's own store in the rounds: the same bits as the same text elsewhere, and only while its person lets it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict

from fedpeft.adapters import Adapter
from fedpeft.device import EdgeClient
from fedpeft.device.edge.events import Adopted, Contributed, Declined, Event
from fedpeft.device.edge.example import Written
from fedpeft.device.edge.joining import Joined, Seat
from fedpeft.device.edge.membership import Membership
from fedpeft.device.edge.policy import ANYTIME, Policy
from fedpeft.device.edge.training import alone
from fedpeft.errors import BaseError, DataError, FedpeftError, PolicyError, ProtocolError, ScenarioError
from fedpeft.export import export_base
from fedpeft.federation import simulate
from fedpeft.federation.adoption import Adoption
from fedpeft.federation.client import client_app, node_config_of, serve_device
from fedpeft.federation.flower_internals import identify
from fedpeft.federation.joining import open_worker
from fedpeft.federation.messages import COHORT, facts, hash_of, read_facts, read_parcel, request
from fedpeft.federation.plan import RoundPlan
from fedpeft.federation.spoken import spoken
from fedpeft.federation.worker import Device, Worker
from fedpeft.methods.attached import SHARED
from fedpeft.scenario import Scenario, parse_scenario
from fedpeft.signing.signature import SigningKey, public_bytes

from ..device.edge.conftest import FINE, persons_messages, probes
from .conftest import TINY


def scenario(federation: str, **tables: Any) -> Scenario:
    given = {**TINY, "data": {"federation": federation, "window": 32, "max_windows": 8}, "channel": {"name": "plain"}}
    return parse_scenario({**given, **tables})


class Desk:
    """A device without a network: what an EdgeClient hands to a joiner, and a worker over it."""

    def __init__(self, home: Path, policy: Policy = ANYTIME) -> None:
        self.heard: list[Event] = []
        self.client = EdgeClient(home, policy=policy, probes=probes(FINE), observer=self.heard.append)
        self.client.home.federation.mkdir(parents=True)
        Membership(self.client.home.federation, "ada", "chat", "localhost:1").save()
        self.client.join(self._take)
        self.device = Device("ada", home / "identity", home / "pinned.json")
        self.worker = Worker(scenario("enrolled"), home / "states", self.device, self.seat)
        serve_device(self.worker)

    def _take(self, seat: Seat) -> Joined:
        self.seat = seat
        return Joined(0, None)

    def ask(self, kind: str, content: RecordDict) -> Message:
        identify(1, 1)
        message = Message(content, 1, kind)
        return client_app()(message, Context(1, 1, node_config_of(self.device), RecordDict(), {}))

    def hello(self) -> tuple[bool, str]:
        values = read_facts(self.ask("query.hello", facts(dict(spoken()))))
        return bool(values["ready"]), str(values["reason"])

    def round(self, kind: str, number: int, change: np.ndarray) -> Message:
        public = self.worker.public(change)
        plan = RoundPlan(
            run="r",
            round=number,
            scenario=self.worker.scenario.digest,
            schema=self.worker.attached.schemas[SHARED].digest,
            base=self.worker.base.fingerprint,
            model=hash_of(public),
            scale=1.0,
        )
        return self.ask(kind, request(plan, public, {COHORT: "ada"} if kind in ("train", "evaluate") else {}))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "me")


def fill(desk: Desk, messages: list[Written]) -> None:
    desk.client.agree()
    desk.client.extend(messages)


def test_text_in_a_store_trains_to_the_bit_as_the_same_text_in_a_file(desk: Desk, tmp_path: Path) -> None:
    messages = persons_messages("user-02", 200)
    fill(desk, messages)
    folder = tmp_path / "people"
    folder.mkdir()
    lines = [{"text": m.text, "mine": m.mine, "conversation": m.conversation, "time": m.time} for m in messages]
    for name in ("ada", "ben", "cleo", "dora"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    other = Worker(scenario(str(folder)), tmp_path / "states")
    assert desk.worker.attached.schemas[SHARED].digest == other.attached.schemas[SHARED].digest
    change = np.zeros(other.size, np.float32)
    np.testing.assert_array_equal(desk.worker.train("ada", 1, change), other.train("ada", 1, change))
    np.testing.assert_array_equal(desk.worker.score("ada", 1, change), other.score("ada", 1, change))
    expected = desk.worker.train("ada", 1, change)
    sent = read_parcel(desk.round("train", 1, change).content, expected.nbytes)
    np.testing.assert_array_equal(np.frombuffer(sent, expected.dtype), expected)


def test_sizes_that_all_must_share_follow_from_the_scenario_alone(desk: Desk, tmp_path: Path) -> None:
    server = Worker(scenario("enrolled"), tmp_path / "server")
    assert server.client_ids == []
    assert desk.worker.client_ids == ["ada"]
    assert server.tally_codec.length == desk.worker.tally_codec.length
    assert server.tally_codec.ring.clients == server.scenario.federation.panel
    assert server.train_codec(1).length == desk.worker.train_codec(1).length


def test_who_has_no_text_no_consent_or_no_power_is_not_ready_and_says_no_more(desk: Desk) -> None:
    assert desk.hello() == (False, "not now")
    assert desk.heard[-1] == Declined(("no consent",))
    desk.client.agree()
    assert desk.hello() == (False, "no text of their own to train on")
    desk.client.extend(persons_messages("user-02", 60))
    assert desk.hello() == (True, "")
    desk.client.withdraw()
    assert desk.hello() == (False, "not now")


def test_the_policy_decides_each_time_and_the_server_is_not_told_why(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "me", Policy(charging=False, battery=None, temperature=None, memory=None, idle=1e9))
    fill(desk, persons_messages("user-02", 60))
    assert desk.hello() == (False, "not now")
    with pytest.raises(PolicyError) as refused:
        desk.round("train", 1, np.zeros(desk.worker.size, np.float32))
    assert "used" not in str(refused.value)
    assert any("used" in reason for event in desk.heard if isinstance(event, Declined) for reason in event.reasons)
    desk.client.policy = ANYTIME
    object.__setattr__(desk.seat, "verdict", lambda: ANYTIME.allows(FINE))
    assert desk.hello() == (True, "")
    desk.round("train", 1, np.zeros(desk.worker.size, np.float32))
    assert desk.heard[-1] == Contributed(1)


def test_what_is_written_or_deleted_meanwhile_is_in_the_next_round(desk: Desk) -> None:
    messages = persons_messages("user-02", 120)
    fill(desk, messages[:80])
    change = np.zeros(desk.worker.size, np.float32)
    first = desk.worker.train("ada", 1, change)
    ids = desk.client.extend(messages[80:])
    more = desk.worker.train("ada", 1, change)
    assert not np.array_equal(first, more)
    for id_ in ids:
        desk.client.delete(id_)
    np.testing.assert_array_equal(desk.worker.train("ada", 1, change), first)


@pytest.mark.parametrize("change_of_mind", ["withdraw", "forget"])
def test_a_change_of_mind_while_it_trains_lets_nothing_leave(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, change_of_mind: str
) -> None:
    fill(desk, persons_messages("user-02", 60))
    train = Worker.train

    def meanwhile(worker: Worker, *given: Any) -> Any:
        payload = train(worker, *given)
        getattr(desk.client, change_of_mind)()
        return payload

    monkeypatch.setattr(Worker, "train", meanwhile)
    desk.heard.clear()
    with pytest.raises(PolicyError, match="declined"):
        desk.round("train", 1, np.zeros(desk.worker.size, np.float32))
    assert Contributed(1) not in desk.heard
    assert any("while it trained" in str(event) for event in desk.heard)


def test_while_the_person_s_own_is_trained_a_round_is_declined(desk: Desk) -> None:
    fill(desk, persons_messages("user-02", 60))
    with alone(desk.client.home.lock), pytest.raises(PolicyError, match="declined"):
        desk.round("train", 1, np.zeros(desk.worker.size, np.float32))
    desk.round("train", 1, np.zeros(desk.worker.size, np.float32))


def test_the_newest_global_adapter_answers_on_the_device_and_starts_what_is_personal(desk: Desk) -> None:
    fill(desk, persons_messages("user-02", 60))
    with pytest.raises(FedpeftError, match="join a federation first"):
        desk.client.suggest("I am ")
    made = Adoption(desk.worker, desk.seat)
    bare = desk.client.suggest("I am ")
    change = np.random.default_rng(0).normal(0, 0.3, desk.worker.size).astype(np.float32)
    desk.round("train", 1, np.zeros(desk.worker.size, np.float32))
    assert made.update()
    assert made.round is None  # nobody has learnt anything yet
    desk.round("query.adopt", 2, change)
    assert desk.worker.over.is_set()
    with alone(desk.client.home.lock):
        assert not made.update()
    assert made.update()
    assert desk.heard[-1] == Adopted(2)
    assert desk.client.suggest("I am ") != bare
    bundle = desk.client.home.shared.current()
    adapter = desk.client.adapter
    assert bundle is not None
    assert adapter is not None
    assert adapter.manifest.signer in desk.seat.trusted
    installed = Adapter.load(bundle, desk.worker.base.fingerprint).vector
    expected = desk.worker.attached.initial[SHARED] + desk.worker.whole(desk.worker.newest[1][desk.worker.public_mask])
    np.testing.assert_array_equal(installed, expected)
    again = EdgeClient(desk.client.home.folder)
    assert again.suggest("I am ") == desk.client.suggest("I am ")
    assert Adoption(desk.worker, desk.seat).update()


def test_an_app_whose_base_is_another_is_refused_before_any_round(desk: Desk, tmp_path: Path) -> None:
    key = SigningKey.generate()
    export_base(desk.worker.base, tmp_path / "base", key=key)
    object.__setattr__(desk.seat, "base", tmp_path / "base")
    with pytest.raises(FedpeftError, match="signer"):
        Adoption(desk.worker, desk.seat)
    object.__setattr__(desk.seat, "trusted", frozenset({*desk.seat.trusted, public_bytes(key).hex()}))
    Adoption(desk.worker, desk.seat)
    object.__setattr__(desk.worker.base, "fingerprint", "0" * 64)
    with pytest.raises(BaseError, match="give this app that base"):
        Adoption(desk.worker, desk.seat)


def test_an_enrolled_federation_is_not_simulated_and_needs_messages_not_lists(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="fedpeft server up"):
        simulate(scenario("enrolled"), tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ScenarioError, match="whoever is enrolled"):
        scenario("enrolled", data={"federation": "enrolled", "clients": 4})
    with pytest.raises(ScenarioError, match="devices keep messages"):
        scenario("enrolled", task={"kind": "classification"})
    with pytest.raises(ScenarioError, match="each device says"):
        scenario("enrolled", devices=[{"name": "a", "clients": ["ada"], "precision": "full"}])
    server = Worker(scenario("enrolled"), tmp_path)
    with pytest.raises(DataError, match="a client of the federation"):
        server.splits("ada")


def test_a_device_without_a_store_does_not_join_for_others_text(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match="host:port"):
        open_worker(tmp_path, "localhost", tmp_path / "s", tmp_path, tmp_path, None)
