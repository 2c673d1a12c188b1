"""What an app meets: consent, suggestions, a policy, a trainer, forgetting. Training itself is tested beside torch."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from fedpeft.adapters import Adapter
from fedpeft.device import AsyncEdgeClient
from fedpeft.device.bundle import Bundle
from fedpeft.device.edge.events import Consented, Deleted, Forgotten, Kept, Personalized, Refused, Started
from fedpeft.device.edge.policy import ANYTIME
from fedpeft.device.edge.training import Job, Learned
from fedpeft.errors import BundleError, ConsentError, PolicyError, StoreError
from fedpeft.export import export_adapter
from tests.device.edge.conftest import FINE, in_a_loop, probes

LEARNED = Learned(messages=1, steps=1, gate=1.0, before=2.0, after=1.0, seconds=0.1)


class Copies:
    """A trainer that exports an adapter which is there already: everything of a training but its arithmetic."""

    def __init__(self, source: Path, meanwhile=lambda: None, owner: str | None = None) -> None:
        self.source, self.meanwhile, self.owner = source, meanwhile, owner

    def __call__(self, job: Job) -> Learned:
        base = Bundle.open(job.base, "base").manifest
        self.meanwhile()
        export_adapter(Adapter.load(self.source), job.out, owner=self.owner or job.owner, base=base, key=job.key)
        return LEARNED


@pytest.fixture
def loudest(run: Path) -> Path:
    return run / "device" / "adapters" / "global"


def test_before_anything_is_learnt_the_apps_own_adapter_answers_and_without_one_the_base(device, runtime, ada):
    assert device().suggest("I am ") == runtime.suggest("I am ", ada)
    assert device(None).suggest("I am ") == runtime.suggest("I am ")
    assert device().generate("I am", tokens=4) == runtime.complete("I am", ada, tokens=4)


def test_everything_is_told_and_no_word_of_what_was_written(device, loudest):
    heard = []
    client = device(observer=heard.append)
    client.agree()
    id_ = client.add("very private")
    client.add("as private")
    client.delete(id_)
    client.personalize(Copies(loudest))
    client.forget()
    client.withdraw()
    kinds = [type(event) for event in heard]
    assert kinds == [Consented, Kept, Kept, Deleted, Started, Personalized, Forgotten, Consented]
    assert "private" not in repr(heard)


def test_a_new_adapter_answers_at_once_here_in_other_processes_and_after_a_restart(device, loudest, runtime, loud):
    client, other = device(), device()
    client.agree()
    client.add("hello")
    before = client.suggest("I am ")
    assert client.personalize(Copies(loudest)) == LEARNED
    expected = runtime.suggest("I am ", loud)
    assert expected != before
    assert client.suggest("I am ") == other.suggest("I am ") == device().suggest("I am ") == expected
    assert client.personal
    client.personalize(Copies(loudest))
    assert len([p for p in (client.home.folder / "personal").glob("*/*") if p.is_dir()]) == 1


def test_forgetting_brings_the_apps_own_adapter_back_and_leaves_nothing_personal(device, loudest):
    client = device()
    client.agree()
    client.add("hello")
    before = client.suggest("I am ")
    client.personalize(Copies(loudest))
    assert client.forget() == 1
    assert client.suggest("I am ") == before
    assert not client.personal
    assert list((client.home.folder / "personal").glob("*/*")) == []


def test_without_consent_nothing_is_kept_or_trained(device, loudest):
    client = device()
    for use in (lambda: client.add("hello"), lambda: client.personalize(Copies(loudest))):
        with pytest.raises(ConsentError, match="consent"):
            use()
    assert client.contents().messages == 0


@pytest.mark.parametrize("change", ["withdraw", "forget"])
def test_who_withdraws_or_forgets_while_it_trains_gets_no_adapter(device, loudest, change):
    client, elsewhere = device(), device()
    client.agree()
    client.add("hello")
    with pytest.raises(ConsentError):
        client.personalize(Copies(loudest, meanwhile=getattr(elsewhere, change)))
    assert not client.personal
    assert [p for p in (client.home.folder / "personal").glob("*/*") if p.is_dir()] == []


def test_the_policy_decides_unless_the_person_says_now_and_every_reason_is_told(device, loudest):
    heard = []
    client = device(probes=probes(replace(FINE, charging=False, battery=0.1)), observer=heard.append)
    client.agree()
    client.add("hello")
    with pytest.raises(PolicyError, match=r"not charging.*battery"):
        client.personalize(Copies(loudest))
    assert heard[-1] == Refused(client.verdict())
    assert not client.personal
    client.personalize(Copies(loudest), ANYTIME)
    assert client.personal


def test_a_device_whose_probes_do_not_know_is_idle_when_the_app_was_not_used(device):
    client = device(probes=probes(replace(FINE, idle=None)))
    client.suggest("I")
    assert any("was used 0 s ago" in reason for reason in client.verdict().reasons)


def test_one_trains_at_a_time(device, loudest):
    client, other = device(), device()
    client.agree()
    client.add("hello")

    def meanwhile() -> None:
        with pytest.raises(StoreError, match="another that trains"):
            other.personalize(Copies(loudest))

    client.personalize(Copies(loudest, meanwhile))


def test_a_training_that_fails_leaves_what_answered_before(device, loudest):
    client = device()
    client.agree()
    client.add("hello")
    client.personalize(Copies(loudest))
    before = client.suggest("I am ")

    def fails() -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        client.personalize(Copies(loudest, fails))
    with pytest.raises(BundleError, match="owner"):
        client.personalize(Copies(loudest, owner="eve"))
    assert client.suggest("I am ") == before
    assert len([p for p in (client.home.folder / "personal").glob("*/*") if p.is_dir()]) == 1


def test_a_personal_adapter_that_another_device_signed_is_refused(device, loudest, tmp_path):
    client = device()
    client.agree()
    client.add("hello")
    client.personalize(Copies(loudest))
    current = client.home.personal.on(client.runtime.manifest.base_fingerprint).current()
    (client.home.key).unlink()
    stranger = device()
    with pytest.raises(BundleError, match="signer"):
        stranger.suggest("I am ")
    shutil.rmtree(current)
    with pytest.raises(BundleError):
        stranger.suggest("I am ")
    stranger.forget()
    assert stranger.suggest("I am ")


@pytest.mark.parametrize("owner", ["", "../eve", ".hidden"])
def test_a_name_that_no_folder_can_have_is_refused(device, owner):
    with pytest.raises(BundleError, match="owner"):
        device(owner=owner)


def test_several_threads_may_suggest_while_one_learns(device, loudest):
    client = device()
    client.agree()
    client.add("hello")
    failures, stop = [], threading.Event()

    def types() -> None:
        while not stop.is_set():
            try:
                assert client.suggest("I am ")
            except BaseException as error:
                failures.append(error)
                return

    typing = [threading.Thread(target=types) for _ in range(3)]
    for thread in typing:
        thread.start()
    for _ in range(3):
        client.personalize(Copies(loudest))
    stop.set()
    for thread in typing:
        thread.join(30)
    assert failures == []


def test_the_same_is_there_for_asynchronous_apps(device, loudest):
    async def day() -> None:
        client = AsyncEdgeClient(device())
        await client.agree()
        first = await client.add("hello")
        await client.delete(first)
        await asyncio.gather(*(client.add(f"message {n}") for n in range(5)))
        assert (await client.contents()).messages == 5
        assert (await client.verdict()).allowed
        assert await client.personalize(Copies(loudest)) == LEARNED
        words, text = await asyncio.gather(client.suggest("I am "), client.generate("I am", tokens=3))
        assert words
        assert text
        assert await client.forget() == 5
        await client.withdraw()

    in_a_loop(day)


def test_an_app_that_does_not_train_never_imports_torch(run, tmp_path):
    code = """
import sys
from pathlib import Path
from fedpeft.device import EdgeClient
run, home = map(Path, sys.argv[1:])
client = EdgeClient(home, run / "base", run / "adapters" / "ada")
client.agree()
client.add("hello")
client.verdict()
assert client.suggest("I am ")
heavy = {"torch", "transformers", "peft", "flwr", "safetensors"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(run / "device"), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def fedpeft(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fedpeft", *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_command_line_asks_for_consent_keeps_counts_and_forgets(tmp_path):
    lines = [{"text": "hi", "mine": False, "conversation": "sam"}, {"text": "hello", "conversation": "sam"}]
    (tmp_path / "chat.jsonl").write_text("\n".join(map(json.dumps, lines)))
    refused = fedpeft("client", "add", "chat.jsonl", "--home", "me", cwd=tmp_path)
    assert refused.returncode == 2
    assert "consent" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert fedpeft("client", "consent", "--give", "--home", "me", cwd=tmp_path).returncode == 0
    assert fedpeft("client", "add", "chat.jsonl", "--home", "me", cwd=tmp_path).returncode == 0
    found = json.loads(fedpeft("client", "store", "--home", "me", "--json", cwd=tmp_path).stdout)
    assert (found["messages"], found["consent"]) == (2, True)
    assert json.loads(fedpeft("client", "forget", "--home", "me", "--json", cwd=tmp_path).stdout) == {"forgotten": 2}


@pytest.mark.parametrize("line", ['{"text": "x", "tiem": 3}', '{"text": "x", "mine": "yes"}', "no json"])
def test_a_file_with_a_bad_line_is_refused_in_one_line_and_nothing_of_it_is_kept(tmp_path, line):
    from typer.testing import CliRunner

    from fedpeft.cli.client import client
    from fedpeft.device.edge.home import Home

    store = Home(tmp_path / "me").store()
    store.agree()
    (tmp_path / "chat.jsonl").write_text('{"text": "good"}\n' + line)
    done = CliRunner().invoke(client, ["add", str(tmp_path / "chat.jsonl"), "--home", str(tmp_path / "me")])
    assert done.exit_code == 1
    assert "\n" not in str(done.exception)
    assert store.contents().messages == 0
