"""kill -9 between what is written and what is sent: started again, a client knows what it may have said."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedpeft.errors import ProtocolError
from fedpeft.secagg.pairwise import FileLog, PairwiseClient
from fedpeft.secagg.pairwise.rehearsal import Rehearsal
from fedpeft.secagg.trust import Identity

from .crook import EVERYBODY, LENGTH, NAMES, Crook

ANNA = NAMES[0]

_CLIENT = """
import json, os, signal, sys
from pathlib import Path
import numpy as np
from fedpeft.secagg.pairwise import FileLog, PairwiseClient
from fedpeft.secagg.trust import Identity, Policy, SignedManifest

told = json.loads(sys.stdin.read())
folder = Path(told["folder"])
policy = Policy(bytes.fromhex(told["authority"]), bytes.fromhex(told["operator"]), "rehearsal")
signed = SignedManifest.from_bytes(bytes.fromhex(told["manifest"]))
client = PairwiseClient(Identity.load(folder / "identity"), policy, signed, FileLog(folder / "session"))
write = FileLog.write

def killed(log, name, content):
    if told["when"] == f"before {name}":
        os.kill(os.getpid(), signal.SIGKILL)
    write(log, name, content)
    if told["when"] == f"after {name}":
        os.kill(os.getpid(), signal.SIGKILL)

FileLog.write = killed
if told["stage"] == "contribute":
    reply = client.contribute(told["round"], "train", "model", told["cohort"], np.zeros(told["length"], np.uint16))
else:
    reply = client.answer(told["stage"], bytes.fromhex(told["request"]))
sys.stdout.write(reply.hex())
"""


class Phone:
    """One client of a rehearsal whose every message is answered by a process of its own."""

    def __init__(self, run: Rehearsal, folder: Path) -> None:
        self.run, self.folder = run, folder
        run.identities[ANNA].save(folder / "identity")
        log = FileLog(folder / "session")
        for name in ("peers", "round"):
            content = run.logs[ANNA].read(name)
            if content is not None:
                log.write(name, content)

    def says(self, stage: str, when: str = "", request: bytes = b"", round_: int = 1) -> bytes | None:
        """Answer one message; None when the process was killed before it could reply."""
        told = {
            "folder": str(self.folder),
            "authority": self.run.authority.public.hex(),
            "operator": self.run.policy.operator.hex(),
            "manifest": self.run.signed.to_bytes().hex(),
            "stage": stage,
            "when": when,
            "request": request.hex(),
            "round": round_,
            "cohort": NAMES,
            "length": LENGTH,
        }
        done = subprocess.run(
            [sys.executable, "-c", _CLIENT], input=json.dumps(told), capture_output=True, text=True, check=False
        )
        if done.returncode == -signal.SIGKILL:
            assert done.stdout == ""
            return None
        assert done.returncode == 0, done.stderr
        return bytes.fromhex(done.stdout)

    def again(self) -> PairwiseClient:
        """Start the client again, in this process."""
        identity = Identity.load(self.folder / "identity")
        return PairwiseClient(identity, self.run.policy, self.run.signed, FileLog(self.folder / "session"))


@pytest.fixture
def phone(run: Rehearsal, tmp_path: Path) -> Phone:
    return Phone(run, tmp_path / "anna")


def contribute(client: PairwiseClient, round_: int) -> bytes:
    return client.contribute(round_, "train", "model", NAMES, np.zeros(LENGTH, np.uint16))


@pytest.mark.slow
def test_killed_after_the_round_is_written_it_contributes_no_second_time(phone: Phone) -> None:
    assert phone.says("contribute", "after round") is None
    with pytest.raises(ProtocolError, match="found 'train 1', expected one after train 1, the last contributed to"):
        contribute(phone.again(), 1)
    assert contribute(phone.again(), 2)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before peers", "after peers", "before round"])
def test_killed_before_the_round_is_written_it_has_not_contributed_yet(phone: Phone, when: str) -> None:
    """Nothing had left; the keys may be a step further, which does no harm."""
    assert phone.says("contribute", when) is None
    assert contribute(phone.again(), 1)
    with pytest.raises(ProtocolError, match="the last contributed to"):
        contribute(phone.again(), 1)


@pytest.mark.slow
def test_killed_at_each_stage_it_says_nothing_else_afterwards(run: Rehearsal, tmp_path: Path) -> None:
    """Everybody but Anna's phone lives on; the server asks her again, and for other things."""
    crook = Crook(run)
    phone = Phone(run, tmp_path / "anna")
    without = tuple(i for i in EVERYBODY if i != 3)
    assert phone.says("survivors", "after round", crook.request("survivors", without)) is None
    # That she signed, and gave up the seed that she shares with client 3, is on disk.
    with pytest.raises(ProtocolError, match="others than before"):
        phone.again().survivors(crook.request("survivors", EVERYBODY))
    reply = phone.again().survivors(crook.request("survivors", without))
    assert len(reply) == 64  # the seed is not given up a second time
    signatures = {**crook.survivors(without, asked=without[1:]), 0: reply[:64]}
    proof = b"".join(signatures[i] for i in without)
    assert phone.says("lock", "after round", crook.request("lock", without, proof)) is None
    with pytest.raises(ProtocolError, match="a locked round"):
        phone.again().survivors(crook.request("survivors", without[:5]))
    locks = {i: crook.ask("lock", i, without, proof) for i in without[1:]}
    opening = crook.opening(0, without, locks)
    assert phone.says("unmask", "after round", opening) is None
    with pytest.raises(ProtocolError, match="a second request"):
        phone.again().unmask(opening)


@pytest.mark.slow
def test_not_killed_it_answers_as_any_other(phone: Phone) -> None:
    """The control: what the other tests start is a client that works."""
    message = phone.says("contribute")
    assert message is not None
    collected = phone.run.server.open_round(1, "train", "model", NAMES)
    collected.add(ANNA, message)
