"""Enrolling and joining as an app meets them; the gate and the rounds themselves are tested where they are."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from fedpeft.device import AsyncEdgeClient, EdgeClient
from fedpeft.device.edge.events import Declined, Enrolled
from fedpeft.device.edge.home import Home
from fedpeft.device.edge.joining import Joined, Seat
from fedpeft.device.edge.membership import Membership
from fedpeft.device.edge.policy import ANYTIME, Policy
from fedpeft.errors import FedpeftError, PolicyError, StoreError
from tests.device.edge.conftest import FINE, in_a_loop, probes


def enroller(home: Path, token: str) -> Membership:
    if token != "good":
        raise FedpeftError("token", "bad", "good")
    member = Membership(Home(home).federation, "ada", "chat", "localhost:1", "localhost:2")
    member.folder.mkdir(parents=True)
    member.save()
    return member


def until_stopped(seat: Seat) -> Joined:
    assert seat.stopping.wait(20)
    return Joined(1, None)


def test_enrolling_makes_a_member_and_is_told(tmp_path: Path) -> None:
    heard = []
    with pytest.raises(FedpeftError, match="token"):
        EdgeClient.enrol(tmp_path / "me", "bad", enroller, observer=heard.append)
    assert heard == []
    client = EdgeClient.enrol(tmp_path / "me", "good", enroller, observer=heard.append)
    assert heard == [Enrolled("ada", "chat")]
    assert Membership.read(client.home.federation).server == "localhost:1"
    with pytest.raises(StoreError, match="fedpeft client enrol"):
        EdgeClient(tmp_path / "you").join(until_stopped)


def test_a_joiner_gets_the_device_and_ends_when_it_is_told_to(tmp_path: Path) -> None:
    client = EdgeClient.enrol(tmp_path / "me", "good", enroller, policy=ANYTIME)
    seats: list[Seat] = []

    def join(seat: Seat) -> Joined:
        seats.append(seat)
        return until_stopped(seat)

    thread = threading.Timer(0.2, client.stop)
    thread.start()
    assert client.join(join, once=True) == Joined(1, None)
    (seat,) = seats
    assert (seat.store, seat.once, seat.member.client, seat.base) == (client.store, True, "ada", None)
    assert "key" not in repr(seat).split("(")[1].split(",")[0]
    assert "Ed25519" not in repr(seat)


def test_rounds_ask_for_the_network_too_and_training_at_home_does_not(tmp_path: Path) -> None:
    asks = Policy(charging=False, battery=None, idle=None, temperature=None, memory=None)
    metered = probes(type(FINE)(metered=True))
    heard: list[object] = []
    client = EdgeClient.enrol(tmp_path / "me", "good", enroller, policy=asks, probes=metered, observer=heard.append)
    client.agree()

    def join(seat: Seat) -> Joined:
        assert not seat.willing
        assert isinstance(heard[-1], Declined)
        assert "byte" in heard[-1].reasons[0]
        with pytest.raises(PolicyError) as refused, seat.training():
            raise AssertionError
        assert "byte" not in str(refused.value)
        return Joined(0, None)

    client.join(join)
    assert client.verdict().allowed


def test_asynchronous_apps_enrol_join_and_cancel(tmp_path: Path) -> None:
    ended = threading.Event()

    def join(seat: Seat) -> Joined:
        found = until_stopped(seat)
        ended.set()
        return found

    async def app() -> None:
        client = await AsyncEdgeClient.enrol(tmp_path / "me", "good", enroller)
        task = asyncio.create_task(client.join(join))
        await asyncio.sleep(0.1)
        client.stop()
        assert await task == Joined(1, None)
        ended.clear()
        task = asyncio.create_task(client.join(join))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    in_a_loop(app)
    assert ended.wait(20)


def test_who_stops_before_the_rounds_begin_does_not_wait_for_them(tmp_path: Path) -> None:
    client = EdgeClient.enrol(tmp_path / "me", "good", enroller)
    client.stop()
    assert client.join(until_stopped) == Joined(1, None)
    threading.Timer(0.2, client.stop).start()
    assert client.join(until_stopped) == Joined(1, None)


def test_forgetting_takes_what_rounds_left_and_leaves_the_memory_of_sessions(tmp_path: Path) -> None:
    client = EdgeClient.enrol(tmp_path / "me", "good", enroller)
    client.agree()
    client.add("hello")
    place = client.home.federation
    for name in ("clients/ada/session/keys", "clients/ada/personal/adapter", "clients/ada/private.bin", "node/reply"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("learnt")
    client.forget()
    left = sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())
    assert left == ["clients/ada/session/keys", "member.json"]
