"""float32, bfloat16, int8 and NF4 clients in one federation: what binds them, and that they learn together."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedpeft.adapters import Adapter
from fedpeft.compare.precisions import evaluate_run
from fedpeft.errors import ProtocolError, ScenarioError
from fedpeft.federation.client import client_app, worker_at
from fedpeft.federation.cohort import roll_call
from fedpeft.federation.fleet import Fleet, bonds
from fedpeft.federation.folder import METRICS, PEOPLE, SCENARIO, RunFolder
from fedpeft.federation.grid import InProcessGrid
from fedpeft.federation.server import agreed, conduct
from fedpeft.federation.watcher import Silent, Watcher
from fedpeft.federation.worker import Device, Worker
from fedpeft.methods.attached import SHARED
from fedpeft.scenario import parse_scenario
from fedpeft.training.config import Training

from .test_resume import Stops, everything, numbers

DEVICES = [
    {"name": "desktop", "share": 0.25, "dtype": "float32"},
    {"name": "laptop", "share": 0.25},
    {"name": "tablet", "share": 0.25, "precision": "int8"},
    {
        "name": "phone",
        "share": 0.25,
        "precision": "nf4",
        "window": 16,
        "checkpointing": True,
        "micro_batch": 2,
        "chunk": 16,
    },
]
STEPS = {"steps": 3, "batch": 4, "learning_rate": 3e-3}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return a scenario of four people who write much alike, one on each class of devices."""
    folder = tmp_path_factory.mktemp("texts")
    for person in range(4):
        lines = [{"text": f"person {person} goes to the market on day {day % 5} at noon"} for day in range(15)]
        (folder / f"person-{person}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {
        "name": "mixed",
        "data": {"federation": str(folder), "window": 32},
        "devices": DEVICES,
        "method": {"name": "lora", "rank": 2},
        "training": STEPS,
        "federation": {"rounds": 2, "cohort": 4, "minimum": 3, "panel": 4, "panel_windows": 2},
        "personalization": {"people": 4, "rank": 2, "training": {**STEPS, "steps": 2}},
    }


def run_at(path: Path, tables: dict[str, Any], workers: int = 1, watcher: Watcher | None = None) -> Path:
    """Run a scenario's rounds and personalization in a folder, from where it stands."""
    folder = RunFolder(path)
    folder.write(SCENARIO, parse_scenario(tables).model_dump(mode="json"))
    config = {"scenario": str(path / SCENARIO), "run-folder": str(path)}
    worker = worker_at(**{"scenario": config["scenario"], "folder": config["run-folder"]})
    worker.fleet.load()
    with folder.lock(), InProcessGrid(client_app(), len(worker.client_ids), config, workers) as grid:
        conduct(grid, worker, folder, watcher or Silent(), "serial")
    return path


@pytest.fixture(scope="module")
def finished(mixed: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_at(tmp_path_factory.mktemp("serial") / "run", mixed)


def test_the_loss_of_a_mixed_cohort_falls_under_secure_aggregation(finished: Path) -> None:
    rows = numbers(finished)
    losses = [row["validation"]["loss"] for row in rows]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.05
    assert [row["contributors"] for row in rows[1:]] == [4, 4]
    assert rows[1]["devices"] == {"desktop": 1, "laptop": 1, "phone": 1, "tablet": 1}


def test_every_class_gains_from_what_all_of_them_learnt(finished: Path) -> None:
    people = [json.loads(line) for line in (finished / PEOPLE).read_text().splitlines()]
    assert {row["device"] for row in people} == {"desktop", "laptop", "phone", "tablet"}
    for row in people:
        assert row["test"]["personal"]["loss"] < row["test"]["global"]["loss"] < row["test"]["base"]["loss"]


def test_forked_workers_give_the_bits_of_one_process(mixed: dict[str, Any], finished: Path, tmp_path: Path) -> None:
    run = run_at(tmp_path / "run", mixed, workers=2)
    assert numbers(run) == numbers(finished)
    assert everything(run) == everything(finished)


def test_a_stopped_run_ends_as_if_it_had_never_been(mixed: dict[str, Any], finished: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_at(tmp_path / "run", mixed, watcher=Stops("round 2"))
    assert len((tmp_path / "run" / METRICS).read_text().splitlines()) == 2
    run = run_at(tmp_path / "run", mixed)
    assert numbers(run) == numbers(finished)
    assert everything(run) == everything(finished)


def start_of(fleet: Fleet, client: str) -> dict[str, np.ndarray]:
    return fleet.of(client).attached.initial


@pytest.mark.parametrize(
    "method",
    [
        {"name": "lora", "rank": 2},
        {"name": "lora", "rank": "auto", "budget": 0.01, "init": "orthogonal"},
        {"name": "qlora", "rank": 2},
        {"name": "adapter_lora"},
        {"name": "pfeiffer"},
        {"name": "ia3"},
    ],
)
def test_every_class_starts_from_the_same_bits_of_the_same_schema(
    mixed: dict[str, Any], method: dict[str, Any]
) -> None:
    devices = [{**device, "precision": device.get("precision", "full")} for device in DEVICES]
    fleet = Fleet(parse_scenario({**mixed, "devices": devices, "method": method}))
    fleet.load()
    held = {(kit.base.dtype, kit.base.precision) for kit in map(fleet.of, fleet.clients)}
    full, half = torch.float32, torch.bfloat16
    assert held == {(full, "full"), (half, "full"), (half, "int8"), (half, "nf4")}
    first = fleet.of(fleet.clients[0])
    for client in fleet.clients[1:]:
        other = fleet.of(client)
        assert other.base.fingerprint == first.base.fingerprint
        for slot, start in first.attached.initial.items():
            assert other.attached.schemas[slot] == first.attached.schemas[slot]
            assert np.array_equal(other.attached.initial[slot], start)
        # What is saved of a person does not tell what they held the base in.
        assert other.attached.config(SHARED) == first.attached.config(SHARED)


def test_a_base_is_loaded_once_for_a_class_and_only_when_somebody_needs_it(mixed: dict[str, Any]) -> None:
    devices = [DEVICES[0], {**DEVICES[3], "share": 0.75}]
    fleet = Fleet(parse_scenario({**mixed, "devices": devices}))
    by_class = {name: [c for c in fleet.clients if fleet.classes[c] == name] for name in set(fleet.classes.values())}
    assert Counter(fleet.classes.values()) == {"desktop": 1, "phone": 3}
    assert fleet._equipped.keys() == {"desktop"}
    assert len({id(fleet.of(client)) for client in by_class["phone"]}) == 1
    assert fleet._equipped.keys() == {"desktop", "phone"}
    assert fleet.of(by_class["desktop"][0]) is fleet.reference


def test_a_class_trains_in_its_own_way(mixed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedpeft.federation import worker as module

    worker, seen = Worker(parse_scenario(mixed), tmp_path), {}
    zero, train = np.zeros(worker.size, np.float32), module.train

    def noted(attached: Any, slot: str, task: Any, own: Any, training: Training, *rest: Any, **options: Any) -> Any:
        seen[attached.base.precision, attached.base.dtype] = training
        assert task.base is attached.base
        return train(attached, slot, task, own, training.model_copy(update={"steps": 1}), *rest, **options)

    monkeypatch.setattr(module, "train", noted)
    for client in worker.client_ids:
        worker.train(client, 1, zero)
    phone = seen.pop(("nf4", torch.bfloat16))
    assert (phone.checkpointing, phone.micro_batch, phone.chunk) == (True, 2, 16)
    assert len(seen) == 3
    assert all((t.checkpointing, t.micro_batch, t.chunk) == (False, None, None) for t in seen.values())


def test_a_method_that_starts_from_the_bases_own_numbers_is_refused(mixed: dict[str, Any]) -> None:
    devices = [{k: v for k, v in device.items() if k != "checkpointing"} for device in DEVICES]
    fleet = Fleet(parse_scenario({**mixed, "method": {"name": "p_tuning_v2", "length": 4}, "devices": devices}))
    with pytest.raises(ScenarioError) as refused:
        fleet.load()
    assert str(refused.value) == (
        "devices[laptop]: found 'another start than that of desktop', expected adapters that add up; "
        "p_tuning_v2 reads the base's own numbers: give all classes one dtype and precision"
    )


def test_a_client_of_another_base_or_another_start_is_not_let_in(
    mixed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    RunFolder(path).write(SCENARIO, parse_scenario(mixed).model_dump(mode="json"))
    config = {"scenario": str(path / SCENARIO), "run-folder": str(path)}
    worker = worker_at(config["scenario"], config["run-folder"])
    phone = next(client for client, name in worker.fleet.classes.items() if name == "phone")
    wanted = agreed(worker)
    worker.fleet.load()
    with InProcessGrid(client_app(), 4, config, 1) as grid:
        assert phone in roll_call(grid, 4, wanted).clients
        own = worker.fleet.of(phone).attached.initial
        monkeypatch.setitem(own, SHARED, own[SHARED] + np.float32(1e-3))
        with pytest.raises(
            ProtocolError, match=r"client person-\d: start: found '[0-9a-f]{12}', expected [0-9a-f]{12}"
        ):
            roll_call(grid, 4, wanted)


def test_a_device_that_names_its_class_holds_no_other_and_fits_to_the_others(
    mixed: dict[str, Any], tmp_path: Path
) -> None:
    scenario = parse_scenario(mixed)
    server = Worker(scenario, tmp_path / "server")
    client = server.client_ids[0]
    kind = next(name for name in ("phone", "tablet") if name != server.fleet.classes[client])
    device = Worker(scenario, tmp_path / "device", Device(client, tmp_path, tmp_path, kind))
    assert (device.fleet.reference.kind.name, device.fleet.classes[client]) == (kind, kind)
    assert device.fleet.of(client) is device.fleet.reference
    assert bonds(device.fleet.reference) == bonds(server.fleet.reference)
    with pytest.raises(ScenarioError, match=r"device: found 'fone', expected a class of the scenario's \[\[devices"):
        Worker(scenario, tmp_path / "other", Device(client, tmp_path, tmp_path, "fone"))


def test_a_persons_adapter_does_not_tell_of_which_class_they_were(finished: Path) -> None:
    shared = Adapter.load(finished / "adapters" / "global")
    saved = [Adapter.load(path) for path in sorted(finished.glob("clients/*/private"))]
    assert len(saved) == 4
    assert {adapter.base for adapter in saved} == {shared.base}
    assert len({json.dumps(adapter.config, sort_keys=True) for adapter in saved}) == 1


def test_what_people_kept_is_scored_anew_as_their_own_class_scored_it(finished: Path) -> None:
    trained = {score.client: score for score in evaluate_run(finished) if score.trained}
    rows = [json.loads(line) for line in (finished / PEOPLE).read_text().splitlines()]
    ways = {"desktop": "float32", "laptop": "bfloat16", "tablet": "int8", "phone": "nf4"}
    for row in rows:
        score = trained.pop(row["client"])
        assert score.held == ways[row["device"]]
        assert score.loss == {control: row["test"][control]["loss"] for control in ("base", "global", "personal")}
    assert not trained
