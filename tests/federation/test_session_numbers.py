"""Session numbers only grow: clients refuse an earlier one, so one that went back would end a federation."""

from __future__ import annotations

import stat
from dataclasses import replace

import pytest

from fedpeft.errors import ProtocolError
from fedpeft.federation.folder import RunFolder
from fedpeft.federation.sessions import join
from fedpeft.federation.trust import Trust
from fedpeft.federation.worker import Worker
from fedpeft.secagg.trust import SignedManifest

NOW = 1_800_000_000


@pytest.fixture
def trust(worker: Worker, folder: RunFolder) -> Trust:
    made = Trust(folder.path)
    made.enrol(worker.client_ids, worker.states)
    return made


def number(trust: Trust, signed: SignedManifest) -> int:
    return int(signed.open(trust.operator.public_key().public_bytes_raw()).run.rpartition("/")[2])


def test_a_backup_that_is_restored_does_not_bring_an_earlier_session_back(worker: Worker, trust: Trust) -> None:
    clock = [NOW]
    keys = replace(trust.keys, least=lambda: clock[0])
    assert number(trust, keys.session(worker, "run")) == NOW
    backup = keys.counter.read_bytes()
    clock[0] += 3600
    latest = keys.session(worker, "run")
    join(worker, "user-00", latest.to_bytes())
    keys.counter.write_bytes(backup)
    clock[0] += 1
    after = keys.session(worker, "run")
    assert number(trust, after) == NOW + 3601
    assert join(worker, "user-00", after.to_bytes())
    keys.counter.unlink()
    clock[0] += 1
    assert join(worker, "user-00", keys.session(worker, "run").to_bytes())


def test_a_clock_that_is_behind_or_two_sessions_in_a_second_still_count_on(worker: Worker, trust: Trust) -> None:
    keys = replace(trust.keys, least=lambda: NOW)
    assert [number(trust, keys.session(worker, "run")) for _ in range(3)] == [NOW, NOW + 1, NOW + 2]
    behind = replace(trust.keys, least=lambda: NOW - 3600)
    assert number(trust, behind.session(worker, "run")) == NOW + 3
    assert stat.S_IMODE(keys.counter.stat().st_mode) == 0o600


def test_a_damaged_counter_is_never_guessed(worker: Worker, trust: Trust) -> None:
    trust.keys.counter.write_text("twelve")
    with pytest.raises(ProtocolError, match=r"session counter .*: found 'twelve'") as error:
        replace(trust.keys, least=lambda: NOW).session(worker, "run")
    assert error.value.permanent
