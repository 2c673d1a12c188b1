"""What docs/adapters.md says to type works, in the order in which it says so."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from fedpeft.adapters import Adapter
from fedpeft.base import load_base
from fedpeft.cli import main


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working directory with a run on the builtin base, untrained but for random numbers."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "keyboard-1"
    folders = {"adapters/global": 8, "clients/user-02/personal": 12, "clients/user-03/personal": 12}
    for seed, (folder, rank) in enumerate(folders.items()):
        torch.manual_seed(seed)
        base = load_base("keyboard", "float32")
        config = LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
        get_peft_model(base.model, config).save_pretrained(tmp_path / "peft")
        (run / folder).parent.mkdir(parents=True)
        Adapter.load(tmp_path / "peft", base.fingerprint).save(run / folder)
    (run / "scenario.json").write_text(json.dumps({"name": "keyboard"}))
    (run / "run.json").write_text(json.dumps({"started": "2026-01-01T00:00:00+00:00"}))
    return tmp_path


@pytest.mark.slow
def test_every_command_and_every_python_block_runs(place: Path, repository: Path) -> None:
    text = (repository / "docs" / "adapters.md").read_text()
    commands = [line for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    assert len(commands) > 10
    for line in commands:
        prompt, program, *arguments = shlex.split(line)
        assert (prompt, program) == ("$", "fedpeft")
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0, line
    blocks = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    done = subprocess.run([sys.executable, "-c", blocks], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
