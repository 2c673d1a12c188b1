"""``fedpeft compare`` and ``fedpeft advise`` through the command line that users call."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fedpeft.cli import main
from fedpeft.compare import Comparison
from fedpeft.federation.folder import to_toml
from tests.compare.conftest import row, tiny

Make = Callable[..., Comparison]
COMMAND = [sys.executable, "-c", "from fedpeft.cli import main; main()"]


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(to_toml(tiny().model_dump(mode="json", exclude_none=True)))
    return path


@pytest.fixture
def evidence(tmp_path: Path, by_hand: Make) -> Path:
    folder = tmp_path / "evidence"
    folder.mkdir()
    made = by_hand([row("full", 0.5, 7_082_627), row("ia3", 0.46, 9_335)])
    (folder / "a.json").write_text(made.model_dump_json())
    return folder


def leave(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    assert isinstance(left.value.code, int)
    return left.value.code


def test_compare_prints_one_object_and_leaves_tables_and_plots(
    scenario: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    code = leave(
        "compare", str(scenario), "--methods", "ia3", "--sizes", "1", "--steps", "4", "--out", str(out), "--json"
    )
    assert code == 0
    found = json.loads(capfd.readouterr().out)
    (comparison,) = found["comparisons"]
    assert [r["method"] for r in comparison["rows"]] == ["full", "ia3"]
    assert Comparison(**comparison).steps == 4
    assert {p.name for p in out.iterdir()} == {f"tiny.{end}" for end in ("json", "md", "svg", "png", "pieces.jsonl")}
    # The second time there is nothing left to run, so it is quick and says the same.
    assert leave("compare", str(scenario), "--methods", "ia3", "--sizes", "1", "--steps", "4", "--out", str(out)) == 0
    shown = capfd.readouterr().out
    assert "ia3" in shown and str(out) in shown.replace("\n", "")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--methods", "lorra"], "did you mean 'lora'"),
        (["--methods", ","], "names, as in lora,ia3"),
        (["--sizes", "half"], "shares of the data"),
        (["--sizes", "2"], "above 0 and up to 1"),
    ],
)
def test_bad_input_to_compare_is_one_line_and_code_2(
    arguments: list[str], told: str, scenario: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leave("compare", str(scenario), "--out", str(tmp_path / "out"), *arguments) == 2
    error = capsys.readouterr().err
    assert told in error and len(error.strip().splitlines()) == 1


def test_a_scenario_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert leave("compare", str(tmp_path / "none.toml")) == 2
    assert "none.toml" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished_and_the_same_command_goes_on(scenario: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [*COMMAND, "compare", str(scenario), "--methods", "ia3,bitfit", "--sizes", "1", "--out", str(out)]
    pieces = out / "tiny.pieces.jsonl"
    # Whoever started the tests in the background may have told them, and so their children, to ignore Ctrl-C.
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    while not pieces.exists() or len(pieces.read_text().splitlines()) < 4:
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, error = running.communicate(timeout=60)
    assert running.returncode == 130, error
    assert f"--out {out}" in error
    before = pieces.read_text()
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert pieces.read_text().startswith(before)
    labels = [json.loads(line)["piece"] for line in pieces.read_text().splitlines()[1:]]
    assert len(labels) == len(set(labels)) == 7


def test_advise_prints_a_proposal_and_its_measurements(evidence: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert leave("advise", "--clients-examples", "200", "--uplink", "12kB", "--from", str(evidence)) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("ia3") and "[method]" in shown and "an estimate" in shown


def test_advise_prints_one_object_and_nothing_else(evidence: Path) -> None:
    command = [*COMMAND, "advise", "--uplink", "12kB", "--from", str(evidence), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["plan"]["method"]["name"] == "ia3" and found["evidence"][0]["method"] == "ia3"
    assert done.stderr == ""


def test_when_nothing_fits_the_code_is_1(evidence: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert leave("advise", "--uplink", "100B", "--from", str(evidence)) == 1
    assert "nothing fits" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--memory", "much"], "--memory: found 'much'"),
        (["--uplink", "-2kB"], "--uplink"),
        (["--privacy", "secret"], "none or secure or dp"),
        (["--task", "classify"], "did you mean 'classification'"),
        (["--devices", "many"], "same or mixed"),
        (["--classes", "4"], "--task classification"),
        (["--from", "/no/such/folder"], "no comparison"),
        (["--base", "keybord"], "did you mean 'keyboard'"),
    ],
)
def test_bad_input_to_advise_is_one_line_and_code_2(
    arguments: list[str], told: str, evidence: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leave("advise", "--from", str(evidence), *arguments) == 2
    error = capsys.readouterr().err
    assert told in error and len(error.strip().splitlines()) == 1


def test_a_damaged_comparison_is_named(evidence: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (evidence / "a.json").read_text()
    (evidence / "a.json").write_text(text.replace('"quality":0.46', '"quality":"good"', 1))
    assert leave("advise", "--from", str(evidence)) == 2
    assert "a.json" in capsys.readouterr().err


def test_rates_are_scored_on_validation_text_and_nothing_else_is_done(
    scenario: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert leave("compare", str(scenario), "--methods", "ia3", "--rates", "0.01,1", "--steps", "3", "--json") == 0
    found = json.loads(capfd.readouterr().out)["validation_loss"]["tiny"]
    assert list(found) == ["full", "ia3"]
    slow, own = (found["ia3"][rate] for rate in ("0.0001", "0.01"))
    assert own < slow
    assert not (tmp_path / "runs").exists()


def test_rates_are_positive_factors(scenario: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert leave("compare", str(scenario), "--rates", "0,1") == 2
    assert "as in 0.3,1,3" in capsys.readouterr().err
