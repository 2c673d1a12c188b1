"""A device that was enrolled at a real gate joins: what it does while its server is away, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedpeft.device import EdgeClient
from fedpeft.device.edge.events import Linked
from fedpeft.device.edge.joining import Joined
from fedpeft.device.edge.policy import ANYTIME
from fedpeft.errors import FedpeftError, ProtocolError, RunError
from fedpeft.federation.joining import join_federation
from fedpeft.federation.node import Rhythm
from fedpeft.federation.on_device import Rounds
from fedpeft.gate import enrol
from fedpeft.gate.app import Gate
from fedpeft.gate.notice import Notice
from tests.gate.conftest import Place, make_place, opened

QUICK = Rhythm(soon=0.1, most=1.0, busy=60.0, idle=300.0, patience=0.5)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = make_place(tmp_path / "fed")
    tables = ["[method]", 'name = "lora"', "rank = 2", "[federation]", "cohort = 4", "panel = 0"]
    with (made.folder / "chat.toml").open("a") as file:
        file.write("\n".join(tables))
    return made


def member(place: Place, home: Path) -> EdgeClient:
    found = Notice.of(place.folder, place.folder / "chat.toml", "127.0.0.1:1")
    with opened(Gate(found, place.tokens), place.folder) as port:
        place.address = f"127.0.0.1:{port}"
        return EdgeClient.enrol(home, place.token(), enrol, policy=ANYTIME)


def test_while_the_server_is_away_the_device_waits_and_can_already_suggest(place: Place, tmp_path: Path) -> None:
    client = member(place, tmp_path / "me")
    with pytest.raises(FedpeftError, match="join a federation first"):
        client.suggest("I am ")
    lines: list[str] = []

    def heard(event: object) -> None:
        if isinstance(event, Linked):
            lines.append(event.line)
            if len(lines) == 2:
                client.stop()

    client._observer = heard
    assert client.join(Rounds(QUICK)) == Joined(0, None)
    assert "127.0.0.1:1" in lines[0]
    assert "again in" in lines[0]
    first = client.suggest("I am ")
    base = client.home.base.current()
    client.stop()
    client.join(Rounds(QUICK), once=True)
    assert client.home.base.current() == base  # it is made once
    assert EdgeClient(tmp_path / "me").suggest("I am ") == first
    given = client.home.federation
    with pytest.raises(ProtocolError, match="fedpeft client join --home"):
        by_hand = (given / "scenario.toml", given / "identity", given / "pinned.json", given / "ca.pem")
        join_federation(tmp_path / "other", "127.0.0.1:1", *by_hand)


def test_a_device_of_a_scenario_with_classes_says_which_it_is(place: Place, tmp_path: Path) -> None:
    with (place.folder / "chat.toml").open("a") as file:
        for name in ("phone", "tablet"):
            file.write(f'\n[[devices]]\nname = "{name}"\nshare = 0.5\nprecision = "full"\ndtype = "bfloat16"\n')
    client = member(place, tmp_path / "me")
    client.stop()
    with pytest.raises(FedpeftError, match="one of phone, tablet"):
        client.join(Rounds(QUICK))
    with pytest.raises(FedpeftError, match="a class of the scenario"):
        client.join(Rounds(QUICK, device="watch"))
    client.stop()
    assert client.join(Rounds(QUICK, device="phone")) == Joined(0, None)


def test_two_processes_do_not_take_part_from_one_home(place: Place, tmp_path: Path) -> None:
    from fedpeft.federation.node.journal import Journal

    client = member(place, tmp_path / "me")
    with Journal(client.home.federation / "node").lock(), pytest.raises(RunError, match="in use"):
        client.join(Rounds(QUICK))
