"""A client agrees to one session after another, never back, and what it said in one it does not forget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedpeft.errors import ProtocolError
from fedpeft.federation.folder import RunFolder
from fedpeft.federation.sessions import end_of, join, leave, meet
from fedpeft.federation.trust import Trust
from fedpeft.federation.worker import Worker
from fedpeft.scenario import parse_scenario
from fedpeft.secagg import Asked
from fedpeft.secagg.pairwise import PairwiseClient
from fedpeft.secagg.pairwise.wire import ENTRY
from fedpeft.secagg.trust import SignedManifest
from fedpeft.signing.signature import SigningKey

from .conftest import TINY

ADA = "user-00"


@pytest.fixture
def trust(worker: Worker, folder: RunFolder) -> Trust:
    made = Trust(folder.path)
    made.enrol(worker.client_ids, worker.states)
    return made


@pytest.fixture
def manifests(trust: Trust, worker: Worker) -> list[bytes]:
    """Return the manifests of three sessions."""
    return [trust.session(worker, "run").to_bytes() for _ in range(3)]


def gather(worker: Worker, manifest: bytes) -> None:
    """Let everybody agree to a session and meet."""
    directory = b"".join(join(worker, client, manifest) for client in worker.client_ids)
    for client in worker.client_ids:
        meet(worker, client, worker.client_ids, directory)


def contribute(worker: Worker, round_: int) -> bytes:
    asked = Asked(round_, "train", "plan", tuple(worker.client_ids))
    return end_of(worker, ADA).protect(asked, np.zeros(worker.train_codec(round_).length, np.uint16))


def run_of(worker: Worker) -> str:
    return end_of(worker, ADA).client.manifest.run  # type: ignore[attr-defined]


def secrets(worker: Worker) -> list[Path]:
    return sorted((worker.states / ADA / "session").glob("*/*"))


def test_asked_twice_a_client_gives_the_same_keys(worker: Worker, manifests: list[bytes]) -> None:
    keys = join(worker, ADA, manifests[0])
    assert len(keys) == ENTRY
    assert join(worker, ADA, manifests[0]) == keys
    assert join(worker, ADA, manifests[1]) != keys


def test_nothing_is_answered_before_a_session(worker: Worker, trust: Trust) -> None:
    with pytest.raises(ProtocolError, match="session of user-00: found 'none'"):
        end_of(worker, ADA)


def test_there_is_no_way_back_to_an_earlier_session(worker: Worker, manifests: list[bytes]) -> None:
    gather(worker, manifests[1])
    assert contribute(worker, 1)
    with pytest.raises(ProtocolError, match="manifest run: found 'run/1', expected a session after run/2"):
        join(worker, ADA, manifests[0])
    assert run_of(worker) == "run/2"
    with pytest.raises(ProtocolError, match="the last contributed to"):
        contribute(worker, 1)


def test_another_manifest_under_the_same_number_is_refused(worker: Worker, trust: Trust) -> None:
    signed = trust.session(worker, "run")
    join(worker, ADA, signed.to_bytes())
    mine = signed.open(trust.operator.public_key().public_bytes_raw())
    other = SignedManifest.of(replace(mine, server="0" * 64), trust.operator)
    with pytest.raises(ProtocolError, match="a session after run/1"):
        join(worker, ADA, other.to_bytes())


@pytest.mark.parametrize("run", ["run", "run/", "run/x", "run/-3", "run/1.5"])
def test_a_manifest_without_a_number_is_refused(run: str, worker: Worker, trust: Trust) -> None:
    gather(worker, trust.session(worker, "run").to_bytes())
    mine = trust.session(worker, "run").open(trust.operator.public_key().public_bytes_raw())
    with pytest.raises(ProtocolError, match="the session's number"):
        join(worker, ADA, SignedManifest.of(replace(mine, run=run), trust.operator).to_bytes())


def test_a_manifest_of_another_operator_is_refused(worker: Worker, trust: Trust, manifests: list[bytes]) -> None:
    body = SignedManifest.from_bytes(manifests[0]).open(trust.operator.public_key().public_bytes_raw())
    forged = SignedManifest.of(body, SigningKey.generate()).to_bytes()
    with pytest.raises(ProtocolError, match="signature of the operator on manifest"):
        join(worker, ADA, forged)
    assert not secrets(worker)


@pytest.mark.parametrize("field", ["scenario", "schema", "federation"])
def test_a_manifest_for_something_else_is_refused(field: str, worker: Worker, trust: Trust) -> None:
    mine = trust.session(worker, "run").open(trust.operator.public_key().public_bytes_raw())
    other = SignedManifest.of(replace(mine, **{field: "0" * 64}), trust.operator)
    with pytest.raises(ProtocolError, match=f"manifest {field}"):
        join(worker, ADA, other.to_bytes())
    assert not secrets(worker)


def test_a_new_session_forgets_the_keys_of_the_last(worker: Worker, manifests: list[bytes]) -> None:
    gather(worker, manifests[0])
    contribute(worker, 1)
    before = {path.read_bytes() for path in secrets(worker) if path.name != ".lock"}
    assert len(before) == 2
    gather(worker, manifests[1])
    after = [path for path in secrets(worker) if path.name != ".lock"]
    assert [path.name for path in after] == ["peers"]
    assert not before & {path.read_bytes() for path in after}
    assert contribute(worker, 1)


def test_killed_while_it_agrees_a_client_has_the_new_session_and_never_the_old_one(
    worker: Worker, manifests: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    gather(worker, manifests[0])
    contribute(worker, 1)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(PairwiseClient, "keys", _killed)
        join(worker, ADA, manifests[1])
    with pytest.raises(ProtocolError, match="a session after run/2"):
        join(worker, ADA, manifests[0])
    with pytest.raises(ProtocolError, match="keys\\(\\) before anything else"):
        contribute(worker, 1)
    # Whether it had keys in that session already it cannot know.
    with pytest.raises(ProtocolError, match="a session that is not over"):
        join(worker, ADA, manifests[1])
    gather(worker, manifests[2])
    assert contribute(worker, 1)


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_who_leaves_has_no_keys_any_more_and_does_not_come_back(worker: Worker, manifests: list[bytes]) -> None:
    gather(worker, manifests[0])
    contribute(worker, 1)
    leave(worker, ADA)
    assert [path.name for path in secrets(worker)] == [".lock"]
    with pytest.raises(ProtocolError, match="keys\\(\\) before anything else"):
        contribute(worker, 2)
    with pytest.raises(ProtocolError, match="found 'run/1', expected a session that is not over"):
        join(worker, ADA, manifests[0])
    gather(worker, manifests[1])
    assert contribute(worker, 1)


def test_killed_while_it_forgets_a_client_loses_its_keys_before_what_it_said_with_them(
    worker: Worker, manifests: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    gather(worker, manifests[0])
    contribute(worker, 1)
    gone: list[Path] = []
    unlink = Path.unlink

    def once(path: Path, *more: object) -> None:
        if gone:
            raise KeyboardInterrupt
        gone.append(path)
        unlink(path)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "unlink", once)
        leave(worker, ADA)
    assert [path.name for path in gone] == ["peers"]
    with pytest.raises(ProtocolError):
        join(worker, ADA, manifests[0])


def test_only_the_owner_can_read_what_a_session_leaves_on_disk(worker: Worker, manifests: list[bytes]) -> None:
    gather(worker, manifests[0])
    contribute(worker, 1)
    folder = worker.states / ADA
    for path in [folder, *(folder / "session").rglob("*"), *(folder / "identity").rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path
    trust = worker.states.parent / "trust"
    for path in [trust, *trust.iterdir()]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_process_that_dies_while_it_enrols_a_client_leaves_nothing_half(
    worker: Worker, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust = Trust(folder.path)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("fedpeft.secagg.trust.identity.write_private", _killed)
        trust.enrol([ADA], worker.states)
    assert not (worker.states / ADA / "identity").exists()
    trust.enrol([ADA], worker.states)
    assert join(worker, ADA, trust.session(worker, "run").to_bytes())
    mine = (worker.states / ADA / "identity" / "identity.pem").read_bytes()
    trust.enrol([ADA], worker.states)
    assert (worker.states / ADA / "identity" / "identity.pem").read_bytes() == mine


def test_on_the_plain_channel_there_are_no_sessions(tmp_path: Path) -> None:
    plain = Worker(parse_scenario(TINY, ["channel.name=plain"]), tmp_path / "clients")
    for stage, call in {"meet": lambda: meet(plain, ADA, [], b""), "leave": lambda: leave(plain, ADA)}.items():
        with pytest.raises(ProtocolError, match=f"found '{stage}', expected none, on the plain channel"):
            call()
