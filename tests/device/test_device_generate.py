"""`fedpeft generate`, as a person calls it, and on a machine that has no torch."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from fedpeft.cli.generate import generate
from fedpeft.cli.suggest import suggest
from fedpeft.errors import BundleError, FedpeftError, RunError

WITHOUT_TORCH = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "peft", "safetensors", "flwr", "onnx", "onnx_ir"}:
            raise ImportError(f"{name} is not on this device")

sys.meta_path.insert(0, Blocked())
"""


def call(run: Path, *arguments: str, verb=generate):
    app = typer.Typer()
    app.command()(verb)
    return CliRunner().invoke(app, ["--runs", str(run.parent), *arguments])


def without_torch(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH + script, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_generation_needs_no_torch_and_gives_the_same(run, runtime, loud):
    script = """
import json
from pathlib import Path
from fedpeft.device import Runtime
run = Path(sys.argv[1])
runtime = Runtime(run / "device" / "base")
loud = runtime.load(run / "device" / "adapters" / "global")
tokens = [list(runtime.generate([1, 3, 300], a, tokens=20, ends=())) for a in (loud, None)]
words = [s.word for s in runtime.suggest("I am ", loud)]
print(json.dumps([tokens, words]))
"""
    done = without_torch(script, str(run))
    assert done.returncode == 0, done.stderr
    tokens, words = json.loads(done.stdout)
    assert tokens == [list(runtime.generate([1, 3, 300], a, tokens=20, ends=())) for a in (loud, None)]
    assert tokens[0] != tokens[1]
    assert words == [s.word for s in runtime.suggest("I am ", loud)]


def test_the_command_needs_no_torch(run):
    script = "from fedpeft.cli import main\nmain(sys.argv[1:])"
    done = without_torch(script, "generate", "--user", "ada", "--prompt", "I am", "--runs", str(run.parent), "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["suggestions"]) == 3


def test_the_command_prints_the_completion_and_three_words(run, runtime, ada):
    result = call(run, "--user", "ada", "--prompt", "I am")
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    assert text.startswith(" ".join(f"I am{runtime.complete('I am', ada, tokens=24)}".split()))
    assert all(s.word in text for s in runtime.suggest("I am", ada))


@pytest.mark.parametrize("user", ["ada", "global", "base"])
def test_json_holds_what_was_asked_and_answered(run, runtime, user):
    result = call(run, "--user", user, "--prompt", "I am ", "--json", "--tokens", "5")
    answer = json.loads(result.output)
    adapter = None if user == "base" else runtime.load(run / "device" / "adapters" / user)
    assert answer["user"] == user
    assert answer["completion"] == runtime.complete("I am ", adapter, tokens=5)
    assert [s["word"] for s in answer["suggestions"]] == [s.word for s in runtime.suggest("I am ", adapter)]


def test_an_unknown_user_is_told_the_nearest_one(run):
    error = call(run, "--user", "adda", "--prompt", "Hi").exception
    assert isinstance(error, RunError)
    assert "did you mean 'ada'?" in str(error)
    assert "\n" not in str(error)


def test_a_user_name_cannot_leave_the_run(run):
    assert isinstance(call(run, "--user", "../base", "--prompt", "Hi").exception, RunError)


def test_a_run_that_was_not_exported_says_so(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "run.json").write_text('{"started": "2025-01-01T00:00:00"}')
    error = call(tmp_path / "new", "--user", "ada", "--prompt", "Hi").exception
    assert isinstance(error, RunError)
    assert "fedpeft export" in str(error)


OPTIONS = {"temperature": 0.9, "top_k": 40, "top_p": 0.9, "repetition_penalty": 1.2, "seed": 7}


def flags(**options: object) -> list[str]:
    return [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]


def test_all_options_of_sampling_reach_the_runtime_and_a_stream_is_the_completion(run, runtime, ada):
    expected = runtime.complete("I am", ada, tokens=12, stop=("e", "zz"), **OPTIONS)
    asked = ["--user", "ada", "--prompt", "I am", "--tokens", "12", "--stop", "e", "--stop", "zz", *flags(**OPTIONS)]
    assert json.loads(call(run, *asked, "--json").output)["completion"] == expected
    assert call(run, *asked, "--stream").output == expected + "\n"
    *parts, last = [json.loads(line) for line in call(run, *asked, "--stream", "--json").output.splitlines()]
    assert "".join(part["text"] for part in parts) == expected and last == {"done": True}
    assert expected != runtime.complete("I am", ada, tokens=12)


def test_words_are_suggested_with_a_person_s_adapter_and_with_several_together(run, runtime, ada, loud):
    together = runtime.compose([ada, loud], [0.7, 0.3])
    for who, adapter in (
        (["--user", "ada"], ada),
        (["--compose", "ada=0.7,global=0.3"], together),
        (["--user", "base"], None),
    ):
        answer = json.loads(call(run, *who, "--text", "I am g", "--json", "--count", "5", verb=suggest).output)
        found = runtime.suggest("I am g", adapter, count=5)
        assert [s["word"] for s in answer["suggestions"]] == [s.word for s in found]
        shown = call(run, *who, "--text", "I am g", verb=suggest).output
        assert [word for word in shown.split() if not word.endswith("%")] == [s.word for s in found[:3]]
        completion = json.loads(call(run, *who, "--prompt", "I am", "--json").output)["completion"]
        assert completion == runtime.complete("I am", adapter, tokens=24)
    assert runtime.suggest("I am g", together) != runtime.suggest("I am g", ada)


@pytest.mark.parametrize(
    ("who", "complaint"),
    [
        ([], "either --user or --compose"),
        (["--user", "ada", "--compose", "ada=1"], "either --user or --compose"),
        (["--compose", "ada"], "compose: found 'ada'"),
        (["--compose", "ada=1,nobody=1"], "user: found 'nobody'"),
        (["--compose", "base=1"], "user: found 'base'"),
    ],
)
def test_who_speaks_has_to_be_clear(run, who, complaint):
    for verb, text in ((generate, "--prompt"), (suggest, "--text")):
        error = call(run, *who, text, "Hi", verb=verb).exception
        assert isinstance(error, FedpeftError)
        assert complaint in str(error)


def test_an_adapter_that_lies_in_somebody_elses_folder_does_not_speak_as_them(run, tmp_path):
    swapped = shutil.copytree(run, tmp_path / "swapped")
    people = swapped / "device" / "adapters"
    (people / "ada").rename(people / "bob")
    for who in (["--user", "bob"], ["--compose", "bob=1"], ["--compose", "global=0.5,bob=0.5"]):
        for verb, text in ((generate, "--prompt"), (suggest, "--text")):
            error = call(swapped, *who, text, "Hi", verb=verb).exception
            assert isinstance(error, BundleError)
            assert "adapter bob owner: found 'ada'" in str(error)
    assert call(swapped, "--user", "global", "--text", "Hi", verb=suggest).exit_code == 0
