"""Ranking replies on a device: what onnxruntime says is what torch and peft say, for each person's own adapter."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from peft import PeftModel
from torch.nn import functional as F
from transformers import AutoModel
from typer.testing import CliRunner

from fedpeft.base import load_base
from fedpeft.cli.rank import rank
from fedpeft.device import Ranker
from fedpeft.device.encoder import _cut
from fedpeft.device.folders import adapter_folder, base_folder, users
from fedpeft.device.similarity import scaled_cosines
from fedpeft.errors import BundleError, RunError
from fedpeft.export import export_run
from fedpeft.methods import Attached
from fedpeft.methods.attached import SHARED
from fedpeft.methods.lora import Lora
from tests.tasks.encoder import publish_encoder, write_talkers

WINDOW = 9
SAID = ["what about the new song", "please show me the rain now", "a new band today"]
REPLIES = ["i want my money", "the sun", "what a song " * 6, "me the card", "the"]


@dataclass(frozen=True)
class Run:
    """A run over a tiny encoder, exported, as `fedpeft simulate` leaves it."""

    folder: Path
    encoder: Path
    ranker: Ranker

    def probabilities(self, owner: str | None) -> np.ndarray:
        """What transformers and peft say, one text at a time, of the replies in their order."""
        model = AutoModel.from_pretrained(self.encoder)
        if owner is not None:
            model = PeftModel.from_pretrained(model, self.folder / "clients" / owner / "personal")
        tokenizer = load_base(str(self.encoder), "float32", labels=0).tokenizer

        def vector(text: str, side: str) -> torch.Tensor:
            words = tokenizer(text, add_special_tokens=False)["input_ids"]
            most = (WINDOW if owner else 512) - 2
            kept = words[:most] if side == "right" else words[-most:]
            with torch.no_grad():
                return model(input_ids=torch.tensor([[2, *kept, 3]])).last_hidden_state[0].mean(0)

        context = vector("\n".join(SAID), "left")
        scores = [20 * F.cosine_similarity(context, vector(r, "right"), dim=0) for r in REPLIES]
        return torch.stack(scores).softmax(0).numpy()


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("ranked")
    write_talkers(folder / "people")
    encoder = publish_encoder(folder / "encoder")
    run = folder / "runs" / "demo"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"started": "2025-11-22T10:00:00+00:00"}))
    scenario = {
        "task": {"kind": "reply_ranking", "pooling": "mean"},
        "data": {"federation": str(folder / "people"), "window": WINDOW},
        "base": {"name": str(encoder), "dtype": "float32"},
    }
    (run / "scenario.json").write_text(json.dumps(scenario))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDPEFT_HOME", str(folder / "home"))
        attached = Attached(load_base(str(encoder), "float32", labels=0), Lora(rank=4), None, seed=0)
        start = attached.initial[SHARED]
        for seed, owner in enumerate(("talker-0", "talker-1")):
            moved = np.random.default_rng(seed).normal(0, 0.3, start.size)
            adapter = attached.adapter(SHARED, (start + moved).astype(np.float32))
            adapter.save(run / "clients" / owner / "personal")
        export_run(run)
        yield Run(run, encoder, Ranker(base_folder(run)))


@pytest.mark.parametrize("owner", [None, "talker-0", "talker-1"])
def test_probabilities_are_those_of_transformers_and_peft(ranked, owner):
    adapter = None if owner is None else ranked.ranker.load(adapter_folder(ranked.folder, owner))
    found = ranked.ranker.rank(SAID, REPLIES, adapter)
    assert [one.probability for one in found] == sorted((one.probability for one in found), reverse=True)
    ours = {one.reply: one.probability for one in found}
    assert np.abs(np.array([ours[reply] for reply in REPLIES]) - ranked.probabilities(owner)).max() < 1e-4


def test_each_persons_adapter_ranks_otherwise_than_the_base_and_each_other(ranked):
    adapters = [None, *(ranked.ranker.load(adapter_folder(ranked.folder, name)) for name in users(ranked.folder))]
    answers = [{one.reply: one.probability for one in ranked.ranker.rank(SAID, REPLIES, a)} for a in adapters]
    for i, one in enumerate(answers):
        for other in answers[i + 1 :]:
            assert max(abs(one[reply] - other[reply]) for reply in REPLIES) > 1e-2


def test_a_context_is_read_from_its_end_as_in_training(ranked):
    mine = ranked.ranker.load(adapter_folder(ranked.folder, "talker-0"))
    assert mine.manifest.context == WINDOW
    whole = ranked.ranker.rank(SAID, REPLIES, mine)
    last = " ".join("\n".join(SAID).split()[-(WINDOW - 2) :])
    assert [one.reply for one in ranked.ranker.rank(last, REPLIES, mine)] == [one.reply for one in whole]
    assert ranked.ranker.rank(last, REPLIES, mine)[0].probability == pytest.approx(whole[0].probability, abs=1e-6)
    other = ranked.ranker.rank(SAID[0], REPLIES, mine)
    assert other[0].probability != pytest.approx(whole[0].probability, abs=1e-4)


def test_marks_around_a_text_stay_however_it_is_cut():
    ids, marks = [2, 10, 11, 12, 13, 3], [1, 0, 0, 0, 0, 1]
    assert _cut(ids, marks, 4, "end") == [2, 10, 11, 3]
    assert _cut(ids, marks, 4, "start") == [2, 12, 13, 3]
    assert _cut(ids, marks, 6, "start") == ids
    assert _cut([10, 11, 12], [0, 0, 0], 2, "start") == [11, 12]
    assert _cut([2, 10, 11], [1, 0, 0], 2, "end") == [2, 10]


def test_scores_are_twenty_times_the_cosine():
    vectors = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    theirs = 20 * F.cosine_similarity(torch.from_numpy(vectors[1:]), torch.from_numpy(vectors[:1]))
    assert np.abs(scaled_cosines(vectors[0], vectors[1:]) - theirs.numpy()).max() < 1e-5
    assert scaled_cosines(vectors[0], np.zeros((1, 8), np.float32)) == [0.0]


def test_nothing_to_rank_is_refused(ranked):
    with pytest.raises(BundleError, match="replies: found 0, expected at least one to rank"):
        ranked.ranker.rank("hello", [])


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch):
    app = typer.Typer()
    app.command()(rank)

    def run(*arguments: str):
        return CliRunner().invoke(app, list(arguments))

    return run


def arguments(ranked: Run, user: str, *more: str) -> list[str]:
    said = [part for text in SAID for part in ("--context", text)]
    offered = [part for text in REPLIES for part in ("--reply", text)]
    return ["--user", user, "--runs", str(ranked.folder.parent), *said, *offered, *more]


def test_the_command_ranks_for_a_person_and_for_the_base(ranked, console):
    for user in ("talker-1", "base"):
        result = console(*arguments(ranked, user, "--json"))
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        theirs = ranked.probabilities(None if user == "base" else user)
        assert found["replies"][0]["reply"] == REPLIES[int(theirs.argmax())]
        assert found["replies"][0]["probability"] == pytest.approx(float(theirs.max()), abs=1e-4)
    assert "%" in console(*arguments(ranked, "talker-1")).stdout


def test_a_user_who_is_nobody_is_refused_with_who_there_is(ranked, console):
    result = console(*arguments(ranked, "talker-7"))
    assert isinstance(result.exception, RunError)
    assert "did you mean 'talker-" in str(result.exception)


def test_ranking_imports_no_torch(ranked):
    script = (
        "import sys; from fedpeft.cli.app import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "rank", *arguments(ranked, "talker-0")],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "i want my money" in done.stdout
