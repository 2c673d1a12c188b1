"""``fedpeft report`` through the command line that users call."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fedpeft.cli import main
from fedpeft.report.figures import figures
from fedpeft.report.folder import read_record


def test_it_prints_the_results_and_writes_the_page(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["report", "keyboard", "--runs", str(run.parent)])
    assert left.value.code == 0
    out = capsys.readouterr().out
    assert "personal" in out and "Perplexity" in out
    assert out.rstrip().endswith(str(run / "report.html"))
    assert (run / "report.html").is_file()


def test_json_is_one_object_and_nothing_else(run: Path) -> None:
    command = [sys.executable, "-c", "from fedpeft.cli import main; main()", "report", "keyboard", "--json"]
    done = subprocess.run([*command, "--runs", str(run.parent)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == figures(read_record(run))
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
    assert (run / "report.html").is_file()


def test_an_unknown_run_ends_with_one_line_and_code_2(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["report", "keybord", "--runs", str(run.parent)])
    assert left.value.code == 2
    assert "keybord" in capsys.readouterr().err


def test_importing_the_command_loads_neither_matplotlib_nor_jinja() -> None:
    code = "import sys, fedpeft.cli.report; print({'matplotlib', 'jinja2', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
