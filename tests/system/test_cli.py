"""The command line on bad input: one clear line, exit code 2, nothing half-written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedpeft.cli import main

FEDPEFT = [sys.executable, "-m", "fedpeft"]


def fedpeft(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*FEDPEFT, *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


BAD = {
    "missing file": (["simulate", "simulations/keybord.toml"], "scenario: found 'simulations/keybord.toml'"),
    "unknown key": (["simulate", "--set", "federation.cohrt=3"], "did you mean 'cohort'?"),
    "wrong type": (["simulate", "--set", 'training.steps="many"'], "training.steps: found 'many'"),
    "refused": (["simulate", "--set", "channel.bits=8", "--set", "federation.cohort=90"], "channel.bits: found 8"),
    "unknown base": (["simulate", "--set", "base.name=keybord"], "did you mean 'keyboard'?"),
    "unknown data": (["simulate", "--set", "data.federation=keybord"], "did you mean 'keyboard'?"),
    "unknown method": (["simulate", "--set", "method.name=lroa"], "did you mean 'lora'?"),
    "unknown engine": (["simulate", "--engine", "rey"], "did you mean 'ray'?"),
    "no run": (["report", "--runs", "/nonexistent"], "make one with `fedpeft simulate`"),
    "unknown bench": (["bench", "roundtripp"], "did you mean 'roundtrip'?"),
    "resume and set": (["simulate", "--resume", "latest", "--set", "seed=1"], "a run keeps its scenario"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_with_one_line_and_exit_code_2(
    case: str, repository: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments, expected = BAD[case]
    monkeypatch.chdir(repository)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capfd.readouterr()
    assert ended.value.code == 2, err
    assert expected in err
    assert "Traceback" not in err
    assert len([line for line in err.splitlines() if line.startswith("error")]) == 1
    assert out == ""


def test_a_broken_toml_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text('name = "x"\nseed = = 3\n')
    done = fedpeft("simulate", "bad.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert "bad.toml" in done.stderr
    assert "line 2" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_doctor_tries_every_part() -> None:
    done = fedpeft("doctor", "--json")
    findings = {f["part"]: f for f in json.loads(done.stdout)["findings"]}
    assert done.returncode == 0
    assert findings["builtin base"]["works"]
    assert findings["adapter files"]["works"]
    assert {"CUDA", "4-bit training", "onnxruntime providers", "Flower", "Ray"} <= findings.keys()


def test_every_verb_explains_itself_with_an_example() -> None:
    for verb in ("simulate", "report", "generate", "export", "pretrain", "bench", "doctor"):
        done = fedpeft(verb, "--help")
        assert done.returncode == 0
        assert "Example" in done.stdout


def test_the_ring_benchmark_prints_one_json_object_as_its_last_line() -> None:
    done = fedpeft("bench", "ring", "--json")
    last = json.loads(done.stdout.splitlines()[-1])
    assert last.keys() == {"bench", "figures", "rival", "machine"}
    assert last["figures"]["error_16_bits_16_clients"] < 1e-6
