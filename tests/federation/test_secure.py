"""Rounds on the secure channel: the sum of exactly those who stayed, down to the threshold; below it nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpeft.cli import main
from fedpeft.errors import RunError, ScenarioError
from fedpeft.federation.client import client_app, worker_at
from fedpeft.federation.folder import METRICS, SCENARIO, RunFolder
from fedpeft.federation.inprocess import resume, simulate
from fedpeft.federation.messages import published
from fedpeft.federation.trust import FEDERATION, Trust
from fedpeft.federation.worker import Worker
from fedpeft.scenario import Scenario, parse_scenario
from fedpeft.secagg import Asked
from fedpeft.secagg.pairwise import handshake_length
from fedpeft.secagg.pairwise.context import RoundContext
from fedpeft.secagg.trust import Authority, Identity

from .conftest import TINY
from .secure_rounds import by_hand, names, open_rounds, start
from .test_resume import Stops, everything, numbers
from .vanishing import STAGES, Vanishing

SIX = ["data.clients=6", "federation.cohort=6", "federation.panel=0"]
WIRE = ("bytes_up", "bytes_down", "handshake_up")


@pytest.fixture
def tiny() -> Scenario:
    """Return a scenario of six clients: one may be corrupt, two may vanish, four make a sum."""
    return parse_scenario(TINY, SIX)


@pytest.fixture(scope="module")
def whole(classes: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a secure run that nothing disturbed; of classifiers, which are quick."""
    return simulate(parse_scenario(classes), tmp_path_factory.mktemp("whole"), engine="serial")


def test_secure_and_plain_runs_end_with_the_same_bits(whole: Path, classes: dict[str, Any], tmp_path: Path) -> None:
    run = simulate(parse_scenario(classes, ["channel.name=plain"]), tmp_path, engine="serial")
    plain, secure = numbers(run), numbers(whole)
    assert [row["handshake_up"] for row in plain[1:]] == [0, 0, 0]
    assert all(row["handshake_up"] > 0 for row in secure[1:])
    assert _without_bytes(plain) == _without_bytes(secure)
    assert everything(run) == everything(whole)


def _without_bytes(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in WIRE} for row in rows]


@pytest.mark.parametrize("answers", [False, True], ids=["itself", "its reply"])
@pytest.mark.parametrize("stage", STAGES)
def test_one_is_lost_at_each_stage_and_the_sum_is_of_those_who_stayed(
    stage: str, answers: bool, worker: Worker, folder: RunFolder, config: dict[str, str]
) -> None:
    leaving = {2: stage} | ({4: "survivors"} if stage == "pairs" else {})
    vanishing = Vanishing(leaving, answers=answers)
    row, after = open_rounds(worker, folder, config, vanishing).one(1, start(worker))
    assert (2, stage) in vanishing.seen
    # After the survivors are fixed a client's vector is in the sum, whatever becomes of it.
    left_out = [] if stage in ("lock", "unmask") else list(leaving)
    assert row["contributors"] == 6 - len(left_out)
    assert row["reasons"].keys() == {f"user-0{client}" for client in leaving}
    assert f"lost at {stage}" in row["reasons"]["user-02"]
    assert "burnt" not in row
    assert np.array_equal(after.change, by_hand(worker, names(worker, *left_out)))


@pytest.mark.parametrize("stage", STAGES)
def test_as_many_as_the_scenario_says_may_be_lost_at_once(
    stage: str, worker: Worker, folder: RunFolder, config: dict[str, str]
) -> None:
    leaving = {1: "survivors", 3: "pairs"} if stage == "pairs" else {1: stage, 3: stage}
    row, after = open_rounds(worker, folder, config, Vanishing(leaving)).one(1, start(worker))
    left_out = () if stage in ("lock", "unmask") else (1, 3)
    assert row["contributors"] == 6 - len(left_out)
    assert np.array_equal(after.change, by_hand(worker, names(worker, *left_out)))


BURNT = {
    "train": "train 1: found '3 survivors', expected at least 4",
    "survivors": "train 1: found '3 survivors', expected at least 4",
    "pairs": "train 1: found '3 survivors', expected at least 4",
    "lock": "train 1: found '3 locks', expected at least 4",
    "unmask": "shares of user-0",
}


@pytest.mark.parametrize("stage", STAGES)
def test_with_too_few_the_round_is_burnt_and_the_run_goes_on(
    stage: str, worker: Worker, folder: RunFolder, config: dict[str, str]
) -> None:
    leaving = {1: "survivors", 3: "pairs", 5: "pairs"} if stage == "pairs" else dict.fromkeys((1, 3, 5), stage)
    run = open_rounds(worker, folder, config, Vanishing(leaving))
    end = run.run()
    _, first, second = folder.lines(METRICS)
    assert first["burnt"]
    assert first["contributors"] == 0
    assert BURNT[stage] in first["reason"]
    assert first["reasons"].keys() == {"user-01", "user-03", "user-05"}
    assert "burnt" not in second
    assert second["contributors"] == 6
    # Nothing of the burnt round is in the second: it began where the first had begun.
    assert np.array_equal(end, published(by_hand(worker, names(worker), round_=2)))


def test_a_panel_that_falls_apart_leaves_the_round_without_a_score(tmp_path: Path) -> None:
    scenario = parse_scenario(TINY, ["data.clients=6", "federation.cohort=6", "federation.panel=6"])
    folder = RunFolder(tmp_path / "run")
    folder.write(SCENARIO, scenario.model_dump(mode="json"))
    config = {"scenario": str(folder.path / SCENARIO), "run-folder": str(folder.path)}
    worker = worker_at(config["scenario"], config["run-folder"])
    vanishing = Vanishing(dict.fromkeys((0, 1, 2), "survivors"), purpose="evaluate")
    open_rounds(worker, folder, config, vanishing).run()
    zero, first, second = folder.lines(METRICS)
    assert zero["validation"]
    assert first["validation"] is None
    assert "evaluate 1: found '3 survivors', expected at least 4" in first["unscored"]
    assert first["contributors"] == 6
    assert second["validation"]


def test_weights_that_no_honest_clients_have_burn_the_round(
    worker: Worker, folder: RunFolder, config: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Worker.train

    def heavy(self: Worker, client: str, *more: Any) -> np.ndarray:
        payload = honest(self, client, *more)
        if client == "user-03":
            # The lane of the weight comes first: 2^20 in fixed point.
            codec = self.train_codec(1)
            digits = codec.lanes.digits
            lanes = codec.lanes.encode(dict.fromkeys(codec.names, 0.0) | {"weight": 2.0**20})
            payload[codec.coordinates : codec.coordinates + digits] = lanes[:digits]
        return payload

    monkeypatch.setattr(Worker, "train", heavy)
    row, after = open_rounds(worker, folder, config).one(1, start(worker))
    assert row["burnt"]
    assert "from 6 contributors, expected at most 1 from each" in row["reason"]
    assert not after.change.any()


@pytest.mark.parametrize(
    "stage", ["round 1", "validate 1", "query.survivors", "query.lock", "query.unmask", "personalize"]
)
def test_an_interrupted_run_is_resumed_in_a_new_session_to_the_same_bits(
    stage: str, whole: Path, classes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = parse_scenario(classes)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("fedpeft.federation.inprocess.client_app", lambda: client_app([_stops(stage)]))
        simulate(scenario, tmp_path, Stops(stage), "serial")
    (run,) = tmp_path.iterdir()
    assert (run / "trust" / "session").read_text() == "1"
    resume(run, engine="serial")
    assert (run / "trust" / "session").read_text() == "2"
    assert numbers(run) == numbers(whole)
    assert everything(run) == everything(whole)
    assert not list(run.glob("clients/*/session/*/peers"))


def _stops(kind: str) -> Any:
    """Press Ctrl-C the sixth time that a client is asked for something."""
    asked = []

    def mod(message: Any, context: Any, call_next: Any) -> Any:
        asked.append(message.metadata.message_type)
        if asked.count(kind) == 6:
            raise KeyboardInterrupt
        return call_next(message, context)

    return mod


def test_one_process_gives_the_numbers_of_two(whole: Path, classes: dict[str, Any], tmp_path: Path) -> None:
    forked = simulate(parse_scenario(classes), tmp_path, engine="inprocess", workers=2)
    assert numbers(forked) == numbers(whole)
    assert everything(forked) == everything(whole)


def _identity(number: int, run: Path) -> Path:
    return run / "clients" / f"user-0{number}" / "identity"


def _missing(run: Path) -> None:
    (_identity(2, run) / "certificate.json").unlink()


def _foreign(run: Path) -> None:
    _replace(2, run, Identity.enrol("user-02", Authority.create(FEDERATION), 2**40))


def _expired(run: Path) -> None:
    _replace(2, run, Identity.enrol("user-02", Trust(run).authority, 1))


def _borrowed(run: Path) -> None:
    for name in ("identity.pem", "certificate.json"):
        (_identity(2, run) / name).write_bytes((_identity(1, run) / name).read_bytes())


def _open_to_all(run: Path) -> None:
    (_identity(2, run) / "identity.pem").chmod(0o644)


def _replace(number: int, run: Path, identity: Identity) -> None:
    for path in _identity(number, run).iterdir():
        path.unlink()
    identity.save(_identity(number, run))


UNFIT = {
    "missing": (_missing, "expected a client and its certificate"),
    "foreign": (_foreign, "signature of the authority for user-02 on certificate"),
    "expired": (_expired, "certificate of user-02: found 'expired at 1'"),
    "borrowed": (_borrowed, "signature of the authority for user-02 on certificate"),
    "open to all": (_open_to_all, "mode 644"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_client_without_a_certificate_of_its_own_is_skipped_with_the_reason(
    case: str, worker: Worker, folder: RunFolder, config: dict[str, str]
) -> None:
    spoil, reason = UNFIT[case]
    Trust(folder.path).enrol(worker.client_ids, worker.states)
    spoil(folder.path)
    run = open_rounds(worker, folder, config)
    assert reason in run.roll.skipped["user-02"]
    assert run.roll.clients == names(worker, 2)
    row, after = run.one(1, start(worker))
    assert row["contributors"] == 5
    assert np.array_equal(after.change, by_hand(worker, names(worker, 2)))


@pytest.mark.parametrize(
    ("unfit", "overrides", "message"),
    [
        ((0, 1, 4), [], r"secure session, train: found .3 clients .*authority for user-00.*expected at least 4 of 6"),
        (
            (0, 1),
            ["federation.panel=6", "federation.cohort=3", "channel.dropout=0"],
            r"train: found .4 clients|no error",
        ),
        ((0,), ["federation.cohort=4", "federation.panel=4", "data.clients=4"], r"train: found .3 clients .* enlarge"),
        ((0, 1, 4), ["federation.panel=6", "federation.cohort=3", "channel.dropout=0"], r"evaluate: found .3 clients"),
    ],
)
def test_too_few_with_certificates_is_the_end_with_the_first_reason(
    unfit: tuple[int, ...], overrides: list[str], message: str, tmp_path: Path
) -> None:
    scenario = parse_scenario(TINY, [*SIX, *overrides])
    folder = RunFolder(tmp_path / "run")
    folder.write(SCENARIO, scenario.model_dump(mode="json"))
    config = {"scenario": str(folder.path / SCENARIO), "run-folder": str(folder.path)}
    worker = worker_at(*config.values())
    Trust(folder.path).enrol(worker.client_ids, worker.states)
    for number in unfit:
        _replace(number, folder.path, Identity.enrol(f"user-0{number}", Authority.create(FEDERATION), 2**40))
    if "no error" in message:
        assert len(open_rounds(worker, folder, config).roll.clients) == 4
        return
    with pytest.raises(RunError, match=message):
        open_rounds(worker, folder, config)


def test_a_panel_larger_than_the_federation_is_all_of_it(classes: dict[str, Any], tmp_path: Path) -> None:
    scenario = parse_scenario(classes, ["federation.panel=16", "federation.cohort=4", "personalization.people=0"])
    rows = numbers(simulate(scenario, tmp_path, engine="serial"))
    assert all(row["validation"] for row in rows)


def test_what_the_handshake_costs_is_in_the_bytes_of_a_round(
    worker: Worker, folder: RunFolder, config: dict[str, str], tmp_path: Path
) -> None:
    row, _ = open_rounds(worker, folder, config).one(1, start(worker))
    plain = RunFolder(tmp_path / "plain")
    scenario = parse_scenario(TINY, [*SIX, "channel.name=plain"])
    plain.write(SCENARIO, scenario.model_dump(mode="json"))
    named = {"scenario": str(plain.path / SCENARIO), "run-folder": str(plain.path)}
    other, _ = open_rounds(worker_at(*named.values()), plain, named).one(1, start(worker))
    assert other["handshake_up"] == 0
    asked = Asked(1, "train", "", tuple(worker.client_ids))
    manifest = (
        Trust(folder.path).session(worker, "run").open(Trust(folder.path).operator.public_key().public_bytes_raw())
    )
    context = RoundContext.of(manifest, asked.round, asked.purpose, asked.model, asked.cohort)
    # Survivors 64, lock 64, unmask 16 for each of five wards and 64, each in a frame of Flower's.
    stages = 64 + 64 + 16 * context.parameters.holders + 64
    assert stages < row["handshake_up"] < stages + 3 * 120
    beside = row["bytes_up"] - other["bytes_up"] - row["handshake_up"]
    assert abs(beside - handshake_length(context)) <= 16
    assert row["bytes_down"] > other["bytes_down"] + 64 * 6


def test_a_run_without_a_panel_sums_updates_only(classes: dict[str, Any], whole: Path, tmp_path: Path) -> None:
    run = simulate(parse_scenario(classes, ["federation.panel=0"]), tmp_path, engine="serial")
    rows = numbers(run)
    assert [row["validation"] for row in rows] == [None] * 4
    assert [row["contributors"] for row in rows[1:]] == [3, 3, 3]
    shared = "adapters/global"
    mine, theirs = ({k: v for k, v in everything(r).items() if k.startswith(shared)} for r in (run, whole))
    assert mine == theirs


def test_the_report_counts_burnt_rounds(
    classes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    vanishing = Vanishing(dict.fromkeys(range(2), "survivors"), rounds=(2,))
    monkeypatch.setattr("fedpeft.federation.inprocess.client_app", lambda: client_app([vanishing]))
    run = simulate(parse_scenario(classes), tmp_path, engine="serial")
    assert [row.get("burnt", False) for row in numbers(run)] == [False, False, True, False]
    with pytest.raises(SystemExit) as ended:
        main(["report", str(run), "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["burnt_rounds"] == 1
    page = (run / "report.html").read_text()
    assert "1 round was burnt: too few clients answered, and the model stayed as it was." in page
    assert "0 of 3, burnt" in page


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["federation.cohort=2", "federation.minimum=2"],
            "federation.cohort: found 2, expected at least 3; a sum of two",
        ),
        (["federation.panel=2"], "federation.panel: found 2, expected at least 3; a sum of two"),
        (["federation.cohort=3", "federation.minimum=3"], "enlarge the cohort or assume less"),
    ],
)
def test_too_small_a_cohort_is_refused_with_what_to_do(overrides: list[str], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        parse_scenario(TINY, overrides)
    parse_scenario(TINY, [*overrides, "channel.name=plain"])
