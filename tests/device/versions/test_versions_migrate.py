"""A device whose federation goes over to another base, with real bases: the keyboard's and one with other weights."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fedpeft.adapters import Adapter
from fedpeft.base import load_base
from fedpeft.base.locate import BUILTIN
from fedpeft.device import EdgeClient
from fedpeft.device.bundle import Bundle
from fedpeft.device.edge.policy import ANYTIME, Policy
from fedpeft.device.edge.training import Job, Learned
from fedpeft.device.manifest import Manifest
from fedpeft.device.versions.fetch import fetch
from fedpeft.device.versions.installed import Installed
from fedpeft.device.versions.migrate import abandon, migrate, open_pair
from fedpeft.device.versions.source import FolderSource
from fedpeft.errors import BundleError, ConsentError, PolicyError, ShelfError
from fedpeft.export import export_adapter, export_base
from fedpeft.personalization.on_device import OnDevice
from fedpeft.registry.publisher import Facts, Publisher
from fedpeft.training import Training
from tests.device.conftest import random_adapter
from tests.device.edge.conftest import persons_messages
from tests.device.versions.kills import killed_at
from tests.registry.bundles import KEY, TRUST, publisher

PROMPTS = ("I am ", "what do you ")
LEARNED = Learned(messages=1, steps=1, gate=1.0, before=2.0, after=1.0, seconds=0.1)


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """Return the folder of a base with the keyboard's shapes and other weights."""
    folder = shutil.copytree(BUILTIN / "keyboard", tmp_path_factory.mktemp("other") / "keyboard")
    weights = load_file(folder / "model.safetensors")
    noise = np.random.default_rng(1)
    for name, array in weights.items():
        weights[name] = (array.astype(np.float32) + noise.normal(0, 0.01, array.shape)).astype(array.dtype)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def shelf(tmp_path_factory, other) -> Iterator[Publisher]:
    """A shelf whose channel `one` is on the keyboard's base and `two` on the other."""
    folder = tmp_path_factory.mktemp("real")
    shelf = publisher(folder / "shelf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDPEFT_HOME", str(tmp_path_factory.mktemp("home")))
        for number, (channel, name) in enumerate((("one", "keyboard"), ("two", str(other)))):
            base = export_base(load_base(name, "float32"), folder / channel, key=KEY)
            export_shared(base, folder / f"{channel}-global", number)
            facts = Facts("run", number, "5" * 64, name, {}, {"mechanism": "none"})
            shelf.publish(facts, {"base": folder / channel, "adapter": folder / f"{channel}-global"}, channel)
        yield shelf


def export_shared(base: Manifest, out: Path, rank: int) -> None:
    export_adapter(random_adapter(base, 2 + rank, 0.02), out, owner="global", base=base, key=KEY)


class Makes:
    """A trainer that makes an adapter of nothing but noise: everything of a training but its arithmetic."""

    def __init__(self, deviation: float = 0.3) -> None:
        self.deviation = deviation

    def __call__(self, job: Job) -> Learned:
        base = Bundle.open(job.base, "base").manifest
        adapter: Adapter = random_adapter(base, 3, self.deviation)
        export_adapter(adapter, job.out, owner=job.owner, base=base, key=job.key)
        return LEARNED


def bring(shelf: Publisher, installed: Installed, channel: str):
    return fetch(FolderSource(shelf.folder), TRUST, installed, channel)


def said(installed: Installed) -> list:
    """Open the device anew, over whatever answers now, and ask."""
    client = open_pair(installed.current())
    return [client.suggest(prompt) for prompt in PROMPTS]


@pytest.fixture
def device(shelf, tmp_path) -> Installed:
    """Return a device on the first base whose person has an adapter of their own."""
    installed = Installed(tmp_path / "me")
    assert bring(shelf, installed, "one").outcome == "installed"
    client = open_pair(installed.current())
    client.agree()
    client.store.extend(persons_messages("user-02", 60))
    client.personalize(Makes(), ANYTIME)
    return installed


def test_a_device_without_an_adapter_of_its_own_just_goes_over(shelf, tmp_path):
    installed = Installed(tmp_path / "you")
    bring(shelf, installed, "one")
    before = said(installed)
    # What rounds on the old base have left does not stand in the way of what is newer.
    joined = installed.home.shared.draft()
    shutil.copytree(installed.current().adapter, joined)
    installed.home.shared.install(joined)
    assert bring(shelf, installed, "two").outcome == "installed"
    assert said(installed) != before


def test_the_old_base_and_adapter_answer_until_the_persons_is_learnt_anew_and_then_both_change(shelf, device):
    before = said(device)
    got = bring(shelf, device, "two")
    assert got.outcome == "waiting"
    assert said(device) == before
    old, new = device.current().version, device.waiting().version
    assert old.base != new.base
    assert bring(shelf, device, "two").outcome == "waiting"

    assert migrate(device, Makes(0.1), ANYTIME) == LEARNED
    assert device.current().version == new
    assert device.waiting() is None
    client = open_pair(device.current())
    assert client.personal
    assert client.adapter.manifest.base_fingerprint == new.base
    assert client.contents().messages == 60
    assert device.home.personal.bases() == [new.base]  # nothing stays that was learnt on the old
    assert bring(shelf, device, "two").outcome == "current"
    with pytest.raises(ShelfError, match="version waiting"):
        migrate(device, Makes())

    device.rollback()
    assert device.current().version == old
    assert not open_pair(device.current()).personal
    assert said(device) != before  # the person's adapter is to be learnt anew; their texts are there
    assert open_pair(device.current()).contents().messages == 60


def test_whatever_keeps_it_from_learning_leaves_what_answers(shelf, device):
    before = said(device)
    bring(shelf, device, "two")

    def fails(_: Job) -> Learned:
        raise MemoryError

    with pytest.raises(MemoryError):
        migrate(device, fails, ANYTIME)
    with pytest.raises(PolicyError):
        migrate(device, Makes(), Policy(idle=1e12))
    open_pair(device.current()).withdraw()
    with pytest.raises(ConsentError):
        migrate(device, Makes(), ANYTIME)
    assert said(device) == before
    assert device.waiting() is not None


def test_who_does_without_goes_over_at_once_and_keeps_the_texts(shelf, device):
    bring(shelf, device, "two")
    new = device.waiting().version
    assert abandon(device) == new
    assert device.current().version == new
    client = open_pair(device.current())
    assert not client.personal
    assert client.contents().messages == 60


def test_an_app_that_opens_another_base_is_told_that_the_adapter_is_of_the_old_one(shelf, device, tmp_path):
    bring(shelf, device, "two")
    pair = device.waiting()
    client = EdgeClient(device.home.folder, pair.base, pair.adapter, trusted=pair.trusted)
    with pytest.raises(BundleError, match=r"personal adapter base.*learnt anew"):
        client.suggest("I am ")


def test_learning_again_on_the_old_base_meanwhile_and_forgetting_leave_nothing_behind(shelf, device):
    bring(shelf, device, "two")
    open_pair(device.current()).personalize(Makes(0.2), ANYTIME)
    migrate(device, Makes(), ANYTIME)
    client = open_pair(device.current())
    client.personalize(Makes(0.2), ANYTIME)
    assert len(device.home.personal.bases()) == 1
    client.forget()
    assert not client.personal
    assert client.suggest("I am ")


@pytest.mark.slow
def test_a_migration_killed_before_every_other_of_its_steps_leaves_an_adapter_that_answers(shelf, device, tmp_path):
    bring(shelf, device, "two")
    home = device.home.folder
    shutil.copytree(home, tmp_path / "before")
    ends, kills = set(), 0
    for step in range(1, 200, 2):
        shutil.rmtree(home)
        shutil.copytree(tmp_path / "before", home)
        if not killed_at(step, home, lambda: migrate(device, Makes(), ANYTIME)):
            break
        kills += 1
        pair = device.current()
        client = open_pair(pair)
        assert client.personal
        assert client.adapter.manifest.base_fingerprint == pair.version.base
        ends.add((pair.version.round, bring(shelf, device, "two").outcome))
    assert kills > 10
    # Killed once the new adapter is there, the next fetch puts it in force.
    assert ends == {(0, "waiting"), (0, "installed"), (1, "current")}


def test_a_real_training_learns_the_store_again_on_the_new_base(shelf, device, other):
    bring(shelf, device, "two")
    learned = migrate(device, OnDevice(base=str(other), training=Training(steps=3)), ANYTIME)
    assert learned.steps == 3
    assert open_pair(device.current()).personal
    assert said(device)
