from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from fedpeft.errors import RunError
from fedpeft.federation.flower_fleet import Delivery
from fedpeft.federation.flower_internals import content_id, identify, number
from fedpeft.federation.messages import parcel, read_parcel
from fedpeft.federation.node.journal import Journal


def message(data: bytes = b"12345") -> Message:
    identify(7, 1)
    return number(Message(parcel(data), 42, "train"), "id-1")


def test_what_was_written_is_found_by_the_next_process_and_is_the_owners_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "node")
    delivery = Delivery(7, "a" * 64, "train", ("b" * 64, "a" * 64))
    journal.keep_node(2**63 + 5)
    journal.keep_delivery(delivery)
    journal.keep_request(message())
    journal.keep_reply(message(b"reply"))
    again = Journal(tmp_path / "node")
    assert (again.node(), again.delivery()) == (2**63 + 5, delivery)
    found = again.request()
    assert (found.metadata.message_id, found.metadata.run_id, read_parcel(found.content, 5)) == ("id-1", 7, b"12345")
    assert read_parcel(again.reply().content, 5) == b"reply"
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in (tmp_path / "node").iterdir())
    assert stat.S_IMODE((tmp_path / "node").stat().st_mode) == 0o700
    again.done()
    assert (again.delivery(), again.request(), again.reply(), again.node()) == (None, None, None, 2**63 + 5)


def test_an_apps_state_is_kept_for_the_latest_runs(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for run in range(6):
        journal.keep_state(run, RecordDict({"mine": ConfigRecord({"run": run})}))
        os.utime(tmp_path / f"state-{run}", (run, run))
    assert journal.state(5)["mine"]["run"] == 5
    assert list(journal.state(0)) == []
    assert len(list(tmp_path.glob("state-*"))) == 4
    journal.keep_state(99, RecordDict())
    assert not (tmp_path / "state-99").exists()


def test_files_of_another_version_are_nothing_and_not_an_error(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for name in ("node", "delivery", "request", "reply", "state-1"):
        (tmp_path / name).write_bytes(b"\xff\x00 not ours")
    assert (journal.node(), journal.delivery(), journal.request(), journal.reply()) == (None,) * 4
    assert list(journal.state(1)) == []


def test_two_nodes_on_one_folder_are_refused(tmp_path: Path) -> None:
    with Journal(tmp_path).lock(), pytest.raises(RunError, match="in use"), Journal(tmp_path).lock():
        pass


def test_the_same_request_finds_the_same_answer_and_another_none(tmp_path: Path) -> None:
    journal, asked = Journal(tmp_path), message()
    journal.keep_answered(content_id(asked), parcel(b"masked"))
    repeated = number(Message(asked.content, 42, "train"), "id-2")
    assert read_parcel(Journal(tmp_path).answered(content_id(repeated)), 6) == b"masked"
    for other in (message(b"54321"), Message(asked.content, 42, "evaluate")):
        assert journal.answered(content_id(other)) is None
    identify(8, 1)
    assert journal.answered(content_id(Message(asked.content, 42, "train"))) is None
