"""The round log: owner-only, durable, and one process at a time."""

import multiprocessing
import os
import signal
import stat
import time

import numpy as np
import pytest

from fedpeft.errors import ProtocolError
from fedpeft.secagg.pairwise import FileLog, PairwiseClient
from fedpeft.secagg.pairwise.rehearsal import Rehearsal

NAMES = [f"c{i}" for i in range(5)]
ZEROS = np.zeros(4, np.uint16)


def test_entries_are_for_the_owner_only_and_replaced_whole(tmp_path):
    log = FileLog(tmp_path / "anna")
    assert log.read("peers") is None
    log.write("peers", b"one")
    log.write("peers", b"two")
    assert log.read("peers") == b"two"
    assert stat.S_IMODE((tmp_path / "anna").stat().st_mode) == 0o700
    with log.exclusive():
        assert {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "anna").iterdir()} == {0o600}
    (tmp_path / "anna" / "peers").chmod(0o644)
    with pytest.raises(ProtocolError, match="chmod"):
        log.read("peers")
    log.clear()
    assert log.read("peers") is None


def client(run, folder):
    return PairwiseClient(run.identities["c0"], run.policy, run.signed, FileLog(folder))


def joined(run, folder):
    anna = client(run, folder)
    run.server = type(run.server)(run.server.manifest, run.server._key, run.authority.public)
    run.server.join("c0", anna.keys())
    for name in NAMES[1:]:
        run.server.join(name, run.clients[name].keys())
    anna.meet(NAMES, run.server.directory(NAMES))
    return anna


def try_contributing(run, folder, start, results):
    start.wait()
    try:
        client(run, folder).contribute(1, "train", "m", NAMES, ZEROS)
        results.put("sent")
    except ProtocolError:
        results.put("refused")


def test_of_many_processes_at_once_one_contributes(tmp_path):
    run = Rehearsal.of(NAMES, 4)
    joined(run, tmp_path / "anna")
    fork = multiprocessing.get_context("fork")
    start, results = fork.Event(), fork.Queue()
    processes = [fork.Process(target=try_contributing, args=(run, tmp_path / "anna", start, results)) for _ in range(4)]
    for process in processes:
        process.start()
    start.set()
    found = sorted(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert found == ["refused"] * 3 + ["sent"]


def contribute_and_hang(run, folder, sent):
    message = client(run, folder).contribute(1, "train", "m", NAMES, ZEROS)
    sent.send_bytes(message)
    time.sleep(60)


def test_a_client_killed_after_sending_does_not_send_again(tmp_path):
    run = Rehearsal.of(NAMES, 4)
    joined(run, tmp_path / "anna")
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    process = fork.Process(target=contribute_and_hang, args=(run, tmp_path / "anna", there))
    process.start()
    assert here.poll(60)
    here.recv_bytes()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    again = client(run, tmp_path / "anna")
    with pytest.raises(ProtocolError, match="one after train 1"):
        again.contribute(1, "train", "m", NAMES, ZEROS)
    again.contribute(2, "train", "m", NAMES, ZEROS)


def test_the_record_is_on_disk_before_the_message_is_returned(tmp_path, monkeypatch):
    run = Rehearsal.of(NAMES, 4)
    anna = joined(run, tmp_path / "anna")
    written = []

    def failing(self, name, content):
        written.append(name)
        raise OSError("disk full")

    monkeypatch.setattr(FileLog, "write", failing)
    with pytest.raises(OSError, match="disk full"):
        anna.contribute(1, "train", "m", NAMES, ZEROS)
    assert written
