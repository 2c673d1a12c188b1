"""What adapters are worth over a base that is held otherwise than they were trained on."""

import json
from hashlib import sha256
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedpeft.cli.app import app
from fedpeft.compare.precisions import Scored, evaluate_run, lines
from fedpeft.errors import FedpeftError
from fedpeft.federation.folder import PEOPLE, SCENARIO


def recorded(run: Path) -> dict[str, dict[str, float]]:
    rows = [json.loads(line) for line in (run / PEOPLE).read_text().splitlines()]
    return {row["client"]: {c: row["test"][c]["loss"] for c in ("base", "global", "personal")} for row in rows}


def contents(run: Path) -> dict[str, str]:
    return {str(p): sha256(p.read_bytes()).hexdigest() for p in run.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def scores(smoke_run: Path) -> list[Scored]:
    """Score one person of the smoke run, which trains in bfloat16."""
    before = contents(smoke_run)
    found = evaluate_run(smoke_run, ("nf4", "graph-float32"), [next(iter(recorded(smoke_run)))])
    assert contents(smoke_run) == before
    return found


def test_as_trained_the_losses_are_those_that_the_run_recorded(scores: list[Scored], smoke_run: Path) -> None:
    (trained,) = (score for score in scores if score.trained)
    assert trained.held == "bfloat16"
    assert trained.loss == recorded(smoke_run)[trained.client]


def test_other_precisions_have_other_losses_that_are_near(scores: list[Scored]) -> None:
    trained = next(score for score in scores if score.trained)
    others = {score.held: score for score in scores if not score.trained}
    assert set(others) == {"nf4", "graph-float32"}
    for held, far in (("nf4", 0.3), ("graph-float32", 0.02)):
        for control, loss in others[held].loss.items():
            assert 0 < abs(loss - trained.loss[control]) < far, (held, control)


def test_a_share_is_of_peoples_gain_as_trained() -> None:
    found = lines(
        [
            Scored("a", "nf4", True, {"base": 4.0, "global": 3.0, "personal": 2.0}),
            Scored("b", "nf4", False, {"base": 4.0, "global": 4.0, "personal": 3.5}),
            Scored("a", "float32", False, {"base": 3.0, "global": 2.5, "personal": 2.0}),
            Scored("b", "float32", True, {"base": 3.0, "global": 3.0, "personal": 2.0}),
        ]
    )
    assert [line.held for line in found] == ["as trained", "nf4", "float32"]
    assert found[0].loss == {"base": 3.5, "global": 3.0, "personal": 2.0}
    assert [line.kept["global"] for line in found] == [1.0, 1.0, 0.5]
    assert [line.kept["personal"] for line in found] == [1.0, pytest.approx(2.5 / 3), pytest.approx(2 / 3)]
    lost = lines([Scored("a", "nf4", True, {"base": 2.0, "global": 3.0, "personal": 2.0})])
    assert lost[0].kept == {"global": None, "personal": None}


@pytest.mark.parametrize(
    ("held", "people", "message"),
    [
        (["int4"], [], "precision: found 'int4', expected a known one; did you mean 'int8'?"),
        (["int8:int8"], [], "precision: found 'int8:int8', expected a known one; did you mean 'int8'?"),
        (["full"], ["nobody"], "user: found 'nobody', expected somebody with a personal adapter; known: "),
    ],
)
def test_what_is_unknown_is_refused(smoke_run: Path, held: list[str], people: list[str], message: str) -> None:
    with pytest.raises(FedpeftError) as refused:
        evaluate_run(smoke_run, held, people)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("changes", "held", "message"),
    [
        ({"seeds": [4, 5], "seed": 0}, "full", "run: found 'a study of seeds [4, 5]', expected a run of one seed"),
        (
            {"task": {"kind": "classification"}},
            "graph-int4",
            "task.kind: found 'classification', expected a task that writes text; leave the graphs out",
        ),
    ],
)
def test_a_run_of_another_kind_is_refused(smoke_run: Path, tmp_path: Path, changes, held, message) -> None:
    tables = json.loads((smoke_run / SCENARIO).read_text())
    (tmp_path / SCENARIO).write_text(json.dumps(tables | changes))
    (tmp_path / "clients").symlink_to(smoke_run / "clients")
    (tmp_path / "adapters").symlink_to(smoke_run / "adapters")
    with pytest.raises(FedpeftError) as refused:
        evaluate_run(tmp_path, [held])
    assert str(refused.value).startswith(message)


def test_a_run_without_adapters_is_refused(smoke_run: Path, tmp_path: Path) -> None:
    (tmp_path / SCENARIO).write_bytes((smoke_run / SCENARIO).read_bytes())
    with pytest.raises(FedpeftError, match=r"run: found .*, expected one with a global and personal adapters; let it"):
        evaluate_run(tmp_path, ["full"])


def test_the_command_prints_the_object_that_it_writes(smoke_run: Path, tmp_path: Path) -> None:
    person, out = next(iter(recorded(smoke_run))), tmp_path / "found.json"
    arguments = ["evaluate", str(smoke_run), "--user", person, "--precision", "full", "--out", str(out)]
    done = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    found = json.loads(done.stdout)
    assert found == json.loads(out.read_text())
    assert [line["held"] for line in found["lines"]] == ["as trained", "bfloat16"]
    assert found["people"][0]["client"] == person
    assert found["people"][0]["loss"] == recorded(smoke_run)[person]
